# A private libvirtd with a small domain `golden`. $1: a directory; $2: a directory with boot/vmlinuz* and lib/modules, as a kernel
# package unpacks. Runs until it is killed; says "ready" when it can be used.
set -eu
cd "$1"
kernel=$(ls "$2"/boot/vmlinuz* | head -n 1)
modules='virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net'

mkdir -p root/bin root/sbin root/etc root/proc root/sys root/dev root/run/sshd root/root root/tmp root/var/tmp root/mod root/usr/sbin img
for program in /bin/bash /bin/tar /usr/sbin/sshd; do
    cp -L "$program" "root$program"
    for library in $(ldd "$program" | grep -o '/[^ ]*'); do
        mkdir -p "root${library%/*}"
        cp -L "$library" "root$library"
    done
done
cp "$(command -v busybox)" root/bin/busybox
for module in $modules; do
    cp "$(find "$2/lib/modules" -name "$module.ko")" root/mod/
done
echo 'root:x:0:0:root:/root:/bin/bash' > root/etc/passwd
echo 'sshd:x:100:65534::/run/sshd:/bin/false' >> root/etc/passwd
echo 'root:x:0:' > root/etc/group
cp host_key key.pub root/etc/
chmod 600 root/etc/host_key
cat > root/etc/sshd_config <<END
HostKey /etc/host_key
AuthorizedKeysFile /etc/key.pub
StrictModes no
UsePAM no
UseDNS no
END
cat > root/init <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
for module in $modules; do insmod /mod/\$module.ko; done
ip link set lo up
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0
/usr/sbin/sshd -f /etc/sshd_config
while :; do sleep 1000; done
END
chmod +x root/init
(cd root && find . | busybox cpio -o -H newc 2> /dev/null | gzip -1) > initrd
qemu-img create -q -f raw img/golden.raw 16M
printf 'golden' | dd of=img/golden.raw conv=notrunc status=none

mkdir -p etc/libvirt run/libvirt lib/libvirt cache
printf 'unix_sock_dir = "%s/run"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n' "$1" > libvirtd.conf
cat > etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
END
cat > golden.xml <<END
<domain type='qemu'>
  <name>golden</name><uuid>6f1d0d3e-51f2-4c62-9b7a-6a1a6b9f0a11</uuid>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>$kernel</kernel><initrd>$1/initrd</initrd><cmdline>console=ttyS0 quiet panic=1</cmdline></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <emulator>$(command -v qemu-system-x86_64)</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='$1/img/golden.raw'/><target dev='vda' bus='virtio'/></disk>
    <serial type='file'><source path='$1/console.log'/></serial>
  </devices>
  <seclabel type='none'/>
</domain>
END

# The daemon asks for users of its own before it reads that it is not to use them.
cp /etc/passwd /etc/group etc/
echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >> etc/passwd
echo 'libvirt-qemu:x:64055:' >> etc/group
mount --bind "$1/etc/passwd" /etc/passwd
mount --bind "$1/etc/group" /etc/group
mount --bind /dev/null /dev/kvm 2> /dev/null || :
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt
mount --bind "$1/etc/libvirt" /etc/libvirt
mount --bind "$1/run/libvirt" /run/libvirt
mount --bind "$1/lib/libvirt" /var/lib/libvirt
mount --bind "$1/cache" /var/cache/libvirt
libvirtd -f "$1/libvirtd.conf" -p "$1/libvirtd.pid" 2> "$1/libvirtd.log" &
uri="qemu:///system?socket=$1/run/libvirt-sock"
tries=0
until virsh -q -c "$uri" define "$1/golden.xml" > /dev/null 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 300 ] || { virsh -q -c "$uri" define "$1/golden.xml" 2>&1; tail -n 5 "$1/libvirtd.log"; exit 1; }
    sleep 0.1
done
echo ready
wait
