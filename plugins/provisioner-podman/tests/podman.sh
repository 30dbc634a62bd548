# Makes, in $1: `podman`, a wrapper with storage of its own, and in it the image localhost/atex-test:1 of busybox, bash and tar.
# Its `systemctl` says `degraded` when asked the second time. The wrapper is slow as long as there is a file of that name.
set -eu
cd "$1"
mkdir -p storage run root/bin root/sbin root/etc root/tmp root/root root/var/tmp
cat > containers.conf <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "none"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
END
cat > podman <<END
#!/bin/sh
export CONTAINERS_CONF=$1/containers.conf
[ ! -e $1/slow ] || sleep 3600
exec podman --root $1/storage --runroot $1/run --storage-driver vfs "\$@"
END
chmod +x podman
for program in bash tar; do
    cp -L "$(command -v $program)" root/bin/
    for library in $(ldd "$(command -v $program)" | grep -o '/[^ ]*'); do
        mkdir -p "root${library%/*}"
        cp -L "$library" "root$library"
    done
done
cp "$(command -v busybox)" root/bin/busybox
for applet in $(busybox --list); do [ -e "root/bin/$applet" ] || ln -s busybox "root/bin/$applet"; done
echo 'root:x:0:0:root:/root:/bin/bash' > root/etc/passwd
printf 'ID=small\nVERSION_ID=1\n' > root/etc/os-release
printf '#!/bin/sh\nexec sleep 2000000000\n' > root/sbin/init
printf '#!/bin/sh\n[ ! -e /up ] || { echo degraded; exit 1; }\ntouch /up\necho starting\nexit 1\n' > root/bin/systemctl
chmod +x root/sbin/init root/bin/systemctl
tar -C root -cf root.tar .
"$1/podman" import -q root.tar localhost/atex-test:1 > image-id
