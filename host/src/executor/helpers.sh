# What tests find in PATH, all in one file: each helper sources it and is known by its name. The control channel is a
# descriptor of the test; writers take turns by a lock, so that a result and its files stay together.
set +e
self=${0##*/} fd=${ATEX_TEST_CONTROL-} state=${TMT_TEST_METADATA%/*} run=${ATEX_MARK##*.}
trap '' PIPE

fail() { printf '%s: %s\n' "$self" "$1" >&2; exit "${2:-1}"; }
[[ $fd && -d $state ]] || fail 'no control channel: this works in a running test only'
{ : >&"$fd"; } 2>/dev/null || fail 'the control channel is closed'

# The lock is flock(1) where there is one, else a file that is made with O_EXCL and names its owner, so that a killed one is
# passed over: by who has a second such file, and so is the only one to look and remove. Else the lock that is removed might
# be that of somebody who was quicker.
lock() {
  local lock=$state/lock.$run
  if command -v flock >/dev/null; then exec 9>>"$state/lock" && flock 9 && return; fi
  until (set -C; echo $$ >"$lock") 2>/dev/null; do
    if owner_is_dead "$lock" && (set -C; : >"$lock.dead") 2>/dev/null; then
      owner_is_dead "$lock" && rm -f "$lock"
      rm -f "$lock.dead"
    fi
    read -r -t 0.0$((RANDOM % 9 + 1)) <> <(:) || sleep 0.02
  done
  trap 'rm -f "$state/lock.$run"' EXIT
}
owner_is_dead() {
  local owner=''
  { read -r owner <"$1"; } 2>/dev/null
  [[ $owner && ! -d /proc/$owner ]]
}

# json TEXT VARIABLE: a JSON string
json() {
  local s=$1
  s=${s//\\/\\\\} s=${s//\"/\\\"} s=${s//$'\n'/\\n} s=${s//$'\t'/\\t}
  s=${s//[$'\001'-$'\037'$'\177']/_}
  printf -v "$2" '"%s"' "$s"
}

# result MEMBERS [FILE]: members of the JSON object, without braces; the file goes along
result() {
  local members=$1 file=${2-} size name object
  if [[ $file ]]; then
    [[ -f $file && -r $file ]] || fail "no such file: $file"
    size=$(wc -c <"$file") || fail "cannot read $file"
    json "${file##*/}" name
    members+=",\"files\":[{\"name\":$name,\"length\":$((size))}]"
  fi
  object="{$members}"
  printf 'result %d\n%s' "${#object}" "$object" >&"$fd" || return 1
  [[ ! $file ]] || head -c "$((size))" "$file" >&"$fd"
}

rank() { case $1 in skip) echo 1 ;; info) echo 2 ;; pass) echo 3 ;; warn) echo 4 ;; fail) echo 5 ;; error) echo 6 ;; *) echo 5 ;; esac }

# One result of a name of its own; the worst of all so far is the test's.
report_result() {
  local file=${OUTPUTFILE-} name status quoted worst=none positional=()
  while (( $# )); do
    case $1 in
      -o|--output-file|--output[fF]ile) file=${2-}; shift ;;
      --output-file=*|--output[fF]ile=*) file=${1#*=} ;;
      -s|-p|-t|--server|--disable-plugin|--disablePlugin|--message|--port) shift ;;
      --server=*|--disable-plugin=*|--disablePlugin=*|--message=*|--port=*|--no-plugins|--) ;;
      *) positional+=("$1") ;;
    esac
    (( $# )) && shift
  done
  (( ${#positional[@]} >= 2 )) || fail "usage: $self [-o FILE] NAME RESULT" 2
  name=${positional[0]%:} status=${positional[1],,}
  [[ $name == / ]] && name=$TMT_TEST_NAME
  [[ $self == rhts-* && -f ${positional[2]-} ]] && file=${positional[2]}
  [[ $file == /dev/null || ! -f $file ]] && file=''
  case $status in
    pass|fail|warn|info|skip|error) ;;
    warning) status=warn ;;
    panic) status=error ;;
    *) fail "not a result: ${positional[1]}" 2 ;;
  esac
  [[ $status == warn ]] && status=${ATEX_REPORT_WARN_AS-warn}
  json "$name" quoted
  lock
  result "\"name\":$quoted,\"status\":\"$status\"" "$file" || fail 'the control channel is closed'
  [[ ${ATEX_REPORT_PARTS_ONLY-} ]] && return
  [[ -e $state/worst.$run ]] && read -r worst <"$state/worst.$run"
  if [[ $worst == none ]] || (( $(rank "$status") > $(rank "$worst") )); then
    printf '%s\n' "$status" >"$state/worst.$run"
    result "\"status\":\"$status\",\"partial\":true"
  fi
}

submit_file() {
  local file=''
  while (( $# )); do
    case $1 in
      -l|--filename|--logfile) file=${2-}; shift ;;
      -S|-T|-s|--server|-t|--type) shift ;;
      -*) ;;
      *) file=$1 ;;
    esac
    (( $# )) && shift
  done
  [[ $file ]] || fail "usage: $self -l FILE" 2
  [[ -f $file ]] || fail "no such file: $file"
  lock
  result '"partial":true' "$file"
}

# Machines of beaker boot from the network unless they are told otherwise: what runs now is to be booted next.
boot_the_same() {
  local line entry='' PATH=$PATH:/usr/sbin:/sbin
  [[ -f /root/EFI_BOOT_ENTRY.TXT ]] && type -P efibootmgr >/dev/null || return 0
  while read -r line; do [[ $line == 'BootCurrent: '* ]] && entry=${line#*: }; done < <(efibootmgr)
  [[ $entry ]] || read -r entry </root/EFI_BOOT_ENTRY.TXT
  [[ ! $entry ]] || efibootmgr -n "$entry" >/dev/null
}

# The host is told first and lets go of the channel; then the machine may go away.
reboot_machine() {
  local command='' seconds=600 word=disconnect hard='' tries
  while (( $# )); do
    case $1 in
      -c|--command) command=${2-}; shift ;;
      -t|--timeout) seconds=${2-}; shift ;;
      -s|--soft) command='systemctl soft-reboot' ;;
      --hard) hard=1 ;;
      -e) printf '%s: -e does nothing, as in tmt since 1.58\n' "$self" >&2 ;;
      *) fail "unknown option $1 (known: -c COMMAND, -t SECONDS, -s, --hard)" 2 ;;
    esac
    (( $# )) && shift
  done
  [[ $seconds =~ ^[0-9]+$ ]] || fail "not a number of seconds: $seconds" 2
  if [[ $hard ]]; then
    [[ ${ATEX_MAY_RESET-0} == 1 ]] || fail 'the provisioner of this machine cannot reset it'
  elif [[ ! $command && ${ATEX_MAY_REBOOT-1} != 1 ]]; then
    [[ ${ATEX_MAY_RESET-0} == 1 ]] || fail 'this machine cannot reboot by itself; give a command with -c'
    hard=1
  fi
  # The hard way it is the host that sees to it.
  if [[ $hard ]]; then word=reset command=:; fi
  if [[ ! $command ]]; then
    command='reboot || shutdown -r now || systemctl reboot'
    boot_the_same
  fi
  ( lock; echo "$word" >&"$fd" ) || fail 'the control channel is closed'
  for tries in {1..300}; do
    echo noop >&"$fd" 2>/dev/null || break
    read -r -t 0.1 <> <(:) || sleep 0.1
  done 2>/dev/null
  eval "exec $fd>&-"
  bash -c "$command"
  while (( SECONDS < seconds )); do sleep 1; done
  fail "the machine was not down after $seconds s"
}

abort_run() { : >"$state/abort"; kill -KILL 0; }

LC_ALL=C
case $self in
  tmt-report-result|rhts-report-result|rstrnt-report-result) report_result "$@" ;;
  tmt-file-submit|rhts-submit-log|rstrnt-report-log) submit_file "$@" ;;
  tmt-reboot|rhts-reboot|rstrnt-reboot) reboot_machine "$@" ;;
  tmt-abort|rhts-abort|rstrnt-abort) abort_run ;;
  *) fail 'unknown helper' ;;
esac
