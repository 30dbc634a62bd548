# The machine's side of a slot. It arrives on the stdin of `bash -s` and needs nothing on the machine but bash (4.1) and tar.
# Only ASCII here, and no "exit 0": see below.
#
#   stdin   commands, and an empty line as heart-beat; end of file, or silence for too long, means that the host is gone
#   stdout  the control stream of the running command;  stderr: its log
# Both streams are cut into one piece per command by a line "\036NONCE ID STATUS FLAGS": an end of file that comes although
# some daemon still holds the descriptor. The nonce is known to the host and to these two processes only; what the tests'
# processes bear, to be found by, is the mark.
#
# Two processes: the keeper only ever reads stdin, so it is never deaf; the worker runs commands and waits for them.

# keeper NONCE MARK SILENCE BASES DIR SLOT FORMER RELAY: FORMER is "PID BOOT" of the keeper that was here before, or empty.
# RELAY: the transport goes on reading when the host has let go (podman does), so a test would never learn of it; control
# bytes pass through a process which is killed then.
keeper() {
  nonce=$1 mark=$2 dir=$5 slot=$6 self=$BASHPID fresh=''
  local silence=$3 limit=$3 detach=0 line len payload why=eof clean='' fd boot
  : "${PATH:=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin}"
  # A process of the host's own box inherits whatever the host was started with. No redirection of this loop: where bash
  # keeps the original meanwhile is a descriptor too.
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [[ $fd == [0-9]* ]] && (( fd > 2 )) && eval "exec $fd>&-"
  done
  read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id || boot=unknown
  await_former "$boot" $7 || exit 75
  enter "$4" || exit 71
  if [[ $8 ]]; then
    exec 1> >(echo "$BASHPID" >"$dir/s$slot/run/relay"; ATEX_MARK=$mark.relay exec cat)
  fi
  exec 5>&1 6>&2
  coproc WORKER { worker "$boot" >&5 5>&- 6>&-; }
  local to=${WORKER[1]} pid=$WORKER_PID LC_ALL=C
  exec 5>&-
  trap : PIPE   # the host may let go while we write
  while :; do
    IFS= read -r -t "$limit" line || { (( $? > 128 && ! detach )) && why=silence; break; }
    case $line in
      '')       kill -0 "$pid" || { why=worker; break; }
                : >"$dir/.alive" ;;
      'do '*)   len=${line#do }; take "$silence" "$len" || break
                printf '%s\n%s' "$len" "$payload" >&"$to" || { why=worker; break; } ;;
      term)     kill -USR1 "$pid" ;;
      kill)     kill -USR2 "$pid" ;;
      # What the test had written before is before this in the pipe: the host reads up to here, and lets go. Its end of file
      # may never come: podman, which dies of what the test writes just then, takes it along.
      detach*)  limit=4 detach=${line#detach }; printf '\036%s %s 0 \n' "$nonce" 18446744073709551615 >&6 ;;
      quit*)    why=quit; [[ $line == *clean ]] && clean=1; eval "exec $to>&-"; wait "$pid"; break ;;
    esac
  done 2>/dev/null
  # The machine was about to go away on purpose: the streams may end, the test may go on for a while.
  if [[ $why == eof ]] && (( detach > 0 )); then
    eval "exec $to>&-"
    kill -HUP "$pid" 2>/dev/null
    [[ $8 ]] && kill -KILL "$(<"$dir/s$slot/run/relay")" 2>/dev/null
    local end=$(( SECONDS + detach ))
    while (( SECONDS < end )) && kill -0 "$pid" 2>/dev/null; do nap 0.2; done
    exit 75
  fi
  [[ $why == quit ]] || { kill -USR2 "$pid"; kill -TERM "$pid"; kill -KILL "$pid"; } 2>/dev/null
  [[ $why == quit && ! $clean ]] || reap "ATEX_MARK=$mark"
  [[ $why == quit && ! $clean ]] || { cd / && remove "$dir"; }
  # A helper of the worker which outlived it for a moment may have made part of it again.
  [[ $why == quit ]] || { nap 0.5; remove "$dir"; }
  # Never 0: libssh2 cannot tell "ended with 0" from "still there" while a daemon keeps the streams open.
  [[ $why == quit ]] && exit 80
  exit 75
}

# take SILENCE LENGTH: a command. With a time-out bash makes two system calls for each character, which for most tests is more
# work than all the rest of this process. What fits into one packet of the connection comes as a whole or not at all.
take() {
  local limit=()
  (( $2 > 16384 )) && limit=(-t "$1")
  IFS= read -r ${limit[@]+"${limit[@]}"} -N "$2" payload
}

nap() { read -r -t "$1" <> <(:) 2>/dev/null || sleep "$1"; }

# A session that was told of a reboot may still be running its test: wait for its end or for our own.
await_former() {
  [[ $2 && $1 == "$3" ]] || return 0
  local line stat
  while kill -0 "$2" 2>/dev/null; do
    read -r stat 2>/dev/null </proc/"$2"/stat || return 0
    [[ ${stat##*) } == Z* ]] && return 0   # only its parent knows it still
    IFS= read -r -t 0.2 line || (( $? > 128 )) || return 1
  done
}

# enter BASES: the work directory, made in the first of the colon-separated BASES that can be written.
enter() {
  local base stale found=$dir bases
  if [[ ! $dir ]]; then
    IFS=: read -r -a bases <<<"$1"
    for base in "${bases[@]}"; do
      dir=$(umask 077; mktemp -d -p "$base" atex-XXXXXXXXXX 2>/dev/null && :) && break
    done
    [[ $dir ]] || { echo "cannot make a work directory in $1" >&2; return 1; }
    : >"$dir/.alive"
    # What a power cut or a killed machine left here: of us, with a sign of life that is a day old.
    for stale in "$base"/atex-??????????/.alive; do
      [[ -O $stale && ! -L ${stale%/.alive} && $(find "$stale" -mmin +1440 2>/dev/null) ]] && remove "${stale%/.alive}"
    done
  fi
  local own=$dir/s$slot
  [[ -d $own/tree ]] && { fresh=old; return; }
  fresh=new
  (umask 077; mkdir -p "$dir") || return 1
  mkdir -p "$dir/bin" "$dir"/plan/{data,source} "$own/tree" "$own/data" "$own/run" "$own/tmp" || return 1
}

remove() {
  rm -rf -- "$1" 2>/dev/null && return
  chmod -R u+rwX -- "$1" 2>/dev/null; rm -rf -- "$1"
}

# Kill everything whose environment has $1, again and again until nothing is left. With grep 25 us a process, without 270.
reap() {
  local p round found
  for round in {1..30}; do
    found=
    for p in $(grep -slaF -- "$1" /proc/[0-9]*/environ || { (( $? == 127 )) && marked "$1"; }); do
      p=${p#/proc/} p=${p%/environ}
      [[ $p == "$BASHPID" || $p == "$$" ]] || { found=1; kill -KILL "$p"; }
    done
    [[ $found ]] || return 0
  done 2>/dev/null
  return 1
}
marked() {
  local f kv
  for f in /proc/[0-9]*/environ; do
    while IFS= read -r -d '' kv; do [[ $kv == "$1"* ]] && { echo "$f"; break; }; done <"$f"
  done
} 2>/dev/null

worker() {
  local len payload boot=$1
  own=$dir/s$slot locale=${LC_ALL-unset} LC_ALL=C pid='' sid='' tty='' struck='' gone=''
  [[ $setsid ]] || set -m   # at least a process group of its own
  trap 'hit TERM' USR1
  trap 'hit KILL; reap "ATEX_MARK=$mark.$slot."' USR2
  # Nobody listens any more: no use in saying anything.
  trap 'gone=1 struck=1' HUP
  trap : PIPE
  # A pipe opened anew has flags of its own: what a test does to O_NONBLOCK hurts itself only. Not possible for sockets.
  reopen=; (exec 3>/proc/self/fd/1 4>/proc/self/fd/2) 2>/dev/null && reopen=1
  exec 8>&1 9>&2
  data=1
  say 0 0 "$self $boot $fresh $dir"
  while IFS= read -r len && IFS= read -r -N "$len" payload; do eval "$payload"; done
}

# hit SIGNAL: to the test's group, and to the group behind its terminal. A test may have said enough to be ended before its
# number is known here: then it is for `run` to do.
hit() {
  struck=1
  [[ $pid ]] || { early=$1; return 0; }
  kill -"$1" -- "-$pid" || kill -"$1" "$pid"
  [[ $tty && ! $sid && -e $own/run/sid ]] && read -r sid <"$own/run/sid"
  [[ $sid ]] && kill -"$1" -- "-$sid"
} 2>/dev/null

# say ID STATUS FLAGS: the end of this command's piece of both streams; tried again when a test made the pipe non-blocking
# and filled it.
say() {
  local fd tries
  for fd in 8 9; do
    tries=0
    until printf '\036%s %s %s %s\n' "$nonce" "$1" "$2" "$3" >&$fd 2>/dev/null; do
      [[ ! $gone ]] && (( ++tries < 3000 )) && kill -0 "$self" || exit 75
      nap 0.02
    done 2>/dev/null
  done
}

# run ID FLAGS CWD METADATA DATA SCRIPT COUNT [NAME=VALUE]...: the plan's own variables are sourced after the first COUNT
# ones. FLAGS: t terminal, c control channel. DATA: number of a directory for data, 0 for none.
run() {
  local id=$1 flags=$2 cwd=$3 number=$5 rc=127 got said='' files
  sid='' tty='' early=''
  [[ $flags == *t* ]] && tty=1
  if (( number >= data )); then   # one fork for 32 tests
    eval "mkdir -p -- \"\$own\"/data/{$number..$((number + 31))}/data"
    data=$(( number + 32 ))
  fi
  [[ -d $cwd ]] || { said=nodir; say "$id" 126 "$said"; return; }
  # A new file is cheaper than one that is emptied: ext4 writes the latter to the disk at once.
  [[ $4 ]] && printf '%s' "$4" >"$own/run/metadata-$id.yaml"
  ( if [[ $flags != *c* ]]; then exec 1>&2
    elif [[ $reopen ]]; then exec 7>/proc/self/fd/1 1>/proc/self/fd/2
    else exec 7>&1 1>&2; fi
    exec 2>&1 8>&- 9>&- </dev/null
    if [[ $locale == unset ]]; then unset LC_ALL; else LC_ALL=$locale; fi
    script=$6 count=$7
    shift 7
    PATH=$dir/bin:$PATH
    export PATH ATEX_MARK=$mark.$slot.$id "${@:1:count}"
    [[ -s $dir/plan/variables.env ]] && left_by_scripts "$dir/plan/variables.env"
    (( $# > count )) && export "${@:count + 1}"
    cd -- "$cwd" || exit 126
    [[ $tty ]] && { terminal "$script"; exit 127; }
    exec $setsid "$shell" -e -o pipefail -c "$script" bash ) &
  pid=$!
  [[ $early ]] && hit "$early"
  # A trap ends the wait with the trap's status; the test's own is remembered for the next wait, once (then 127).
  while struck=; wait "$pid"; got=$?; (( got == 127 )) && [[ $rc != 127 ]] || rc=$got; [[ $struck ]]; do :; done 2>/dev/null
  kill -KILL -- "-$pid" 2>/dev/null
  [[ $tty ]] && { hit KILL; [[ -e $own/run/rc ]] && read -r rc <"$own/run/rc"; }
  leftovers
  pid='' sid=''
  if (( number )); then
    shopt -s nullglob dotglob
    files=("$own/data/$number/data"/*)
    shopt -u nullglob dotglob
    (( ${#files[@]} )) && said+=' data'
  fi
  [[ $flags == *c* && -e $own/run/abort ]] && { rm -f "$own/run/abort"; said+=' abort'; }
  say "$id" "$rc" "$said"
}

# left_by_scripts FILE: the variables that scripts left for later ones. Where tests share the machine, one that rewrites the
# file may be at it: whoever does holds the directory FILE.lock meanwhile. Waited for 10 s; then its owner is dead.
left_by_scripts() {
  local tries lock=''
  if [[ -d $dir/s1 ]]; then
    lock=$1.lock
    for tries in {1..500}; do mkdir "$lock" 2>/dev/null && break; nap 0.02; done
  fi
  set -a; . "$1"; set +a
  [[ ! $lock ]] || rmdir "$lock" 2>/dev/null
}

# Of the processes born since the test: kill those of its group or session (a kill takes effect only a moment later); say
# "held" if another one has our streams. The last pid from /proc/loadavg tells whether anything was born at all, and if it was
# little, which numbers to look at: /proc may be large, and is others' business where machines share a box.
leftovers() {
  local now p round again
  for round in {1..60}; do
    again=
    (( round > 5 )) && nap 0.01
    read -r _ _ _ _ now </proc/loadavg || now=0
    (( now == pid )) && return
    if (( now > pid && now <= pid + 100 )); then
      for (( p = pid + 1; p <= now; p++ )); do leftover "$p"; done
    else
      for p in /proc/[0-9]*; do
        p=${p#/proc/}
        (( now == 0 || (now > pid ? p > pid && p <= now : p > pid || p <= now) )) && leftover "$p"
      done
    fi
    [[ $again ]] || return 0
  done
} 2>/dev/null
leftover() {
  local p=$1 stat
  read -r stat </proc/"$p"/stat || return
  set -- ${stat##*) }
  [[ $1 == Z || $p == "$BASHPID" || $p == "$self" ]] && return
  if [[ $3 == "$pid" || $4 == "$pid" || $4 == "$sid" ]]; then kill -KILL "$p"; again=1
  elif holds "$p"; then said=held; fi
}
holds() {
  local f
  for f in /proc/"$1"/fd/*; do [[ $f -ef /proc/self/fd/8 || $f -ef /proc/self/fd/9 ]] && return 0; done
  return 1
}

# terminal SCRIPT: a pseudo-terminal by script(1), else python3; the status comes by file, the control descriptor by
# inheritance. script(1) starts its command by the user's shell, which may stay in between (dash does) or refuse (nologin); ours
# replaces itself, so that what notes its number leads the session. The test sees the user's again.
terminal() {
  local user
  printf -v user 'SHELL=%q' "$SHELL"   # bash knows it from the user's account where nobody has set it
  printf '%s' "$1" >"$own/run/script"
  rm -f "$own/run/rc" "$own/run/sid"
  printf '%s\n' "$user" "echo \$\$ >'$own/run/sid'; stty cols 80 rows 24 2>/dev/null" \
    "bash -e -o pipefail -c \"\$(<'$own/run/script')\"" "echo \$? >'$own/run/rc'" >"$own/run/tty.sh"
  export TERM=xterm
  if command -v script >/dev/null; then SHELL=/bin/sh exec $setsid script -q -c "exec bash '$own/run/tty.sh'" /dev/null
  elif command -v python3 >/dev/null; then exec $setsid python3 -c "
import os,pty,fcntl,termios,struct,sys
p,m=pty.fork()
if not p: os.execvp('bash',['bash',sys.argv[1]])
fcntl.ioctl(m,termios.TIOCSWINSZ,struct.pack('HHHH',24,80,0,0))
while True:
    try: b=os.read(m,65536)
    except OSError: break
    if not b: break
    os.write(1,b)
os.waitpid(p,0)" "$own/run/tty.sh"
  fi
  echo "tty: neither script(1) nor python3 on this machine" >&2
}

# collect ID DIRECTORY: its contents as a tar stream on stdout
collect() {
  local rc
  $setsid tar -cf - -C "$2" . 2>/dev/null </dev/null 8>&- 9>&- &
  pid=$!
  while struck=; wait "$pid"; rc=$?; [[ $struck ]]; do :; done 2>/dev/null
  pid=''
  say "$1" "$rc" ''
}

# By their paths, so that no test pays for the search; what is not found by an absolute one is left to PATH.
setsid=; hash setsid 2>/dev/null && setsid=${BASH_CMDS[setsid]} && [[ $setsid == /* ]] || setsid=${setsid:+setsid}
shell=$BASH; [[ $shell == /* ]] || shell=bash
