rlPass() { echo "a stand-in for beakerlib"; }
