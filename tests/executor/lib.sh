# For the tests of this tree.

# say JSON [DATA]: a result, and the bytes of its files
say() {
    local LC_ALL=C
    printf 'result %d\n%s%s' "${#1}" "$1" "${2-}" >&"$ATEX_TEST_CONTROL"
}

# word TEXT: a control line
word() { printf '%s\n' "$*" >&"$ATEX_TEST_CONTROL"; }

# times COUNT TEXT: without programs
times() {
    local text
    printf -v text "%*s" "$1" ''
    printf '%s' "${text// /"$2"}"
}

# For ever, until a trap ends it. Not by `wait`: bash may miss a signal that comes just before it waits.
idle() { while :; do read -r -t 0.1 <> <(:) || true; done; }

# Waits until the host has closed the channel.
released() {
    trap '' PIPE
    while { echo noop >&"$ATEX_TEST_CONTROL"; } 2>/dev/null; do :; done
}

# Lets go of the machine: the test is started again.
let_go() {
    word disconnect
    released
}
