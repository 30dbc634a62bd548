# Followed by the lists required, recommended, exclude, copr, files, the flags epel and skip, and `main`.
set +e
have() { type -P "$1" >/dev/null; }

find_manager() {
  local name own='' ID='' ID_LIKE=''
  if have rpm-ostree && { [[ -e /run/ostree-booted ]] || ! have dnf && ! have yum; }; then manager=rpm-ostree; return; fi
  # Other systems' package managers can be installed too.
  . "${PACKAGE_OS_RELEASE:-/etc/os-release}" 2>/dev/null
  case " $ID $ID_LIKE " in
    *' debian '*|*' ubuntu '*) own=apt-get ;;
    *suse*) own=zypper ;;
    *' alpine '*) own=apk ;;
  esac
  for name in $own dnf yum zypper apt-get apk; do have "$name" && { manager=$name; return; }; done
  manager=none
}

# is_there NAME: a package, a file of one, or something that one provides
is_there() {
  # Often installed from its sources, or put somewhere else by the plan.
  [[ $1 == beakerlib && -r ${BEAKERLIB:-/usr/share/beakerlib}/beakerlib.sh ]] && return
  case $manager in
    none)    [[ $1 == /* && -e $1 ]] ;;
    apt-get) [[ $1 == /* ]] && { [[ -e $1 ]]; return; }
             [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]] ;;
    apk)     apk info -e "$1" >/dev/null 2>&1 ;;
    *)       rpm -q --quiet --whatprovides "$1" 2>/dev/null ;;
  esac
}

# install NAME...: all of them or failure
install() {
  local options=() name
  case $manager in
    none)       echo "no package manager that is known here (dnf, yum, apt-get, apk, zypper, rpm-ostree) to install: $*" >&2
                return 1 ;;
    dnf|yum)    for name in "${exclude[@]}"; do options+=("--exclude=$name"); done
                "$manager" -y install "${options[@]}" -- "$@" ;;
    zypper)     zypper --non-interactive install -- "$@" ;;
    apt-get)    for name in "${exclude[@]}"; do options+=("$name-"); done
                DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends install -- "$@" "${options[@]}" ;;
    apk)        apk add -- "$@" ;;
    rpm-ostree) rpm-ostree install --idempotent --allow-inactive --apply-live -- "$@" ;;
  esac
}

# missing NAME...: sets the list `wanted` to what is not there
missing() {
  local name
  wanted=()
  for name; do is_there "$name" || wanted+=("$name"); done
}

repositories() {
  local name ID='' VERSION_ID=''
  if [[ $epel || ${#copr[@]} -gt 0 ]] && [[ $manager != dnf && $manager != yum ]]; then
    echo "copr and epel need dnf or yum, this machine has $manager" >&2
    return 1
  fi
  if [[ $epel ]] && ! is_there epel-release; then
    . "${PACKAGE_OS_RELEASE:-/etc/os-release}" 2>/dev/null
    "$manager" -y install epel-release ||
      "$manager" -y install "https://dl.fedoraproject.org/pub/epel/epel-release-latest-${VERSION_ID%%.*}.noarch.rpm" || return
  fi
  (( ${#copr[@]} == 0 )) && return 0
  missing "$manager-command(copr)"
  (( ${#wanted[@]} )) && install 'dnf-command(copr)'
  for name in "${copr[@]}"; do "$manager" -y copr enable "$name" || return; done
}

# Package managers refuse to work beside each other, and several machines may be one box: one at a time, until this shell
# ends. The lock is flock(1) where there is one, else a file with the owner's number, empty if there is none.
take_turns() {
  local directory owner=''
  for directory in "${PACKAGE_LOCKS:-/run/lock}" /run /var/tmp; do [[ -d $directory && -w $directory ]] && break; done
  lock=$directory/atex-packages.$UID
  if have flock; then exec 9>>"$lock" && flock 9; return; fi
  while :; do
    read -r owner 2>/dev/null <"$lock"
    [[ $owner == "$$" ]] && break
    # Of several that take it at once the last one has it; a moment later all have seen who that is.
    { [[ $owner ]] && kill -0 "$owner"; } 2>/dev/null || echo "$$" >|"$lock"
    read -rt 0.2 <> <(:)
    owner=''
  done
  trap ': >|"$lock"' EXIT
}

main() {
  find_manager
  is_done && exit 0
  take_turns
  # What is installed may start services: they must not inherit the lock.
  work 9>&-
}

# Nothing is missing: no reason to wait for anybody.
is_done() {
  [[ ! $epel ]] && (( ${#copr[@]} + ${#files[@]} + ${#exclude[@]} == 0 )) || return
  missing "${required[@]}" "${recommended[@]}"
  (( ${#wanted[@]} == 0 ))
}

work() {
  local name
  if (( ${#exclude[@]} )) && [[ $manager != dnf && $manager != yum && $manager != apt-get ]]; then
    echo "\`exclude\` is not possible with $manager" >&2
    exit 1
  fi
  repositories || exit 1
  for name in "${files[@]}"; do
    [[ -e $name ]] || { echo "no such package file in the tree: $name" >&2; exit 1; }
  done
  (( ${#files[@]} == 0 )) || install "${files[@]/#/./}" || exit 1
  missing "${required[@]}"
  if (( ${#wanted[@]} )); then
    [[ $manager == apt-get ]] && refresh
    if ! install "${wanted[@]}"; then
      [[ $skip ]] || exit 1
      for name in "${wanted[@]}"; do install "$name" || echo "skipped, as it cannot be had: $name" >&2; done
    fi
  fi
  missing "${recommended[@]}"
  if (( ${#wanted[@]} )) && ! install "${wanted[@]}"; then
    for name in "${wanted[@]}"; do install "$name" || echo "recommended, but cannot be had: $name" >&2; done
  fi
  exit 0
}

# Lists of a fresh image may be missing altogether.
refresh() {
  local lists=(/var/lib/apt/lists/*_Packages*)
  [[ -e ${lists[0]} ]] || apt-get -q update
}
