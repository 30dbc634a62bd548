# Claims on this machine. A claim is a file in $D named by its lease; see claim.rs for why it is safe.
# Given: D directory, L lease, M mark, H holder, T lifetime in seconds, W what to do.
set -u
umask 022

say() { printf 'atex-claim: %s\n' "$*"; }

now() {
    up=0
    [ ! -r /proc/uptime ] || read -r up _ < /proc/uptime
    up=${up%%.*}
    boot=none
    [ ! -r /proc/sys/kernel/random/boot_id ] || read -r boot < /proc/sys/kernel/random/boot_id
    time=$(date +%s)
}

number() {
    case $1 in '' | *[!0-9]* | 0?* | ????????????????*) return 1 ;; esac
}

# Reads the claim in file $1 into c_...; fails if it is not there.
look() {
    c_mark='' c_holder='' c_boot='' c_up='' c_time='' c_life=''
    [ -f "$1" ] || return 1
    while IFS='=' read -r key value; do
        case $key in
            mark) c_mark=$value ;;
            holder) c_holder=$value ;;
            boot) c_boot=$value ;;
            up) c_up=$value ;;
            time) c_time=$value ;;
            life) c_life=$value ;;
        esac
    done < "$1" 2> /dev/null
}

# Whether the claim that was looked at still counts. Within one boot the clock that nobody can set decides.
live() {
    number "$c_up" && number "$c_time" && number "$c_life" || return 1
    if [ "$c_boot" = "$boot" ]; then
        [ "$up" -le $((c_up + c_life)) ]
    else
        [ "$time" -le $((c_time + c_life)) ]
    fi
}

# Says who else holds the machine, or fails. Claims whose time is over are swept; those of other users do not count.
held_by_others() {
    for file in "$D"/a*; do
        [ "$file" != "$D/$L" ] && look "$file" || continue
        if live; then
            say "busy $c_mark ($c_holder)"
            return 0
        fi
        rm -f "$file" 2> /dev/null
    done
    return 1
}

# Says that nobody may have the machine, and who said so, or fails.
retired() {
    [ -f "$D/retired" ] || return 1
    by=
    read -r by < "$D/retired"
    say "retired $by"
}

write() {
    for try in 1 2 3 4 5; do
        [ ! -h "$D" ] || { say "failed $D is a symbolic link"; exit 0; }
        mkdir -p -m 1777 "$D" || continue
        printf 'mark=%s\nholder=%s\nboot=%s\nup=%s\ntime=%s\nlife=%s\n' "$M" "$H" "$boot" "$up" "$time" "$T" \
            > "$D/.$L.$$" || continue
        sync "$D/.$L.$$" 2> /dev/null
        # The directory may have gone between two of these: whoever gives the last claim up removes it.
        mv -f "$D/.$L.$$" "$D/$L" && return 0
    done
    say "failed cannot write to $D"
    exit 0
}

remove() {
    rm -f "$D/$L" "$D/.$L."*
    rmdir "$D" 2> /dev/null
    [ ! -e "$D/$L" ] || { say "failed cannot remove $D/$L"; exit 0; }
}

claim() {
    retired && exit 0
    held_by_others && exit 0
    write
    if held_by_others; then
        remove
        exit 0
    fi
    say "claimed"
}

now
case $W in
    claim) claim ;;
    renew) if [ -f "$D/$L" ]; then claim; else say "free"; fi ;;
    retire)
        mkdir -p -m 1777 "$D" && printf '%s (%s)\n' "$M" "$H" > "$D/retired" && sync "$D/retired" 2> /dev/null
        retired || say "failed cannot write $D/retired"
        ;;
    state) if look "$D/$L" && live; then say "claimed"; else say "free"; fi ;;
    release) remove; say "free" ;;
    list)
        for file in "$D"/a*; do
            look "$file" && say "mark $c_mark"
        done
        say "end"
        ;;
esac
