//! For the tests of plugins: fakes of the host and checks that every plugin of a kind should pass. Feature `testkit`.
