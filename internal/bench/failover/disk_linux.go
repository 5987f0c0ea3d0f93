package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ownMounts keeps what is mounted from now on within this process and its children, which must be in a mount namespace of
// their own.
func ownMounts() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// mountDisk makes a disk at the directory, which it creates.
func mountDisk(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4g")
}

func unmountDisk(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }

// fillDisk leaves no space on it, and freeDisk gives it back.
func fillDisk(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	used := (int64(st.Blocks) - int64(st.Bfree)) * st.Bsize
	return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+st.Bsize))
}

func freeDisk(dir string) error { return unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=4g") }
