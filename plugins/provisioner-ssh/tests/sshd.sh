# Runs sshd for machine $2 with the files of $1, in a mount namespace that ends with it. $3: address. With a
# file $1/shadow it takes the passwords of that.
set -eu
mkdir -p "$1/$2/tmp" "$1/$2/home"
awk -F: -v OFS=: -v me="$(id -un)" -v home="$1/$2/home" '$1 == me { $6 = home } { print }' /etc/passwd > "$1/$2/passwd"
mount --bind "$1/$2/passwd" /etc/passwd
mount --bind "$1/$2/tmp" /var/tmp
mkdir -p /run/sshd
passwords=no login=prohibit-password
if [ -e "$1/shadow" ]; then
    mount --bind "$1/shadow" /etc/shadow
    passwords=yes login=yes
fi
cat > "$1/$2/config" <<END
ListenAddress $3:2222
HostKey $1/host_key
PidFile none
AuthorizedKeysFile $1/key.pub
StrictModes no
UsePAM no
UseDNS no
PasswordAuthentication $passwords
PermitRootLogin $login
MaxStartups 200:30:400
END
exec "$(command -v sshd)" -f "$1/$2/config" -D -e
