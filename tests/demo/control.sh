# Sourced by the tests that talk to the host. Lengths are bytes.
LC_ALL=C

# result JSON [FILE...]: report a result; the files named in its `files` follow in their order
result() {
    printf 'result %d\n%s' "${#1}" "$1" >&"$ATEX_TEST_CONTROL"
    shift
    (($# == 0)) || cat -- "$@" >&"$ATEX_TEST_CONTROL"
}
