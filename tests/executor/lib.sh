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

# The channel was closed by the host.
released() {
    trap '' PIPE
    while { echo noop >&"$ATEX_TEST_CONTROL"; } 2>/dev/null; do :; done
}

# Over and started again: the machine was let go of.
let_go() {
    word disconnect
    released
}
