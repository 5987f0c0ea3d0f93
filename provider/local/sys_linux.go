package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// cloneFile makes out share the blocks of in (ioctl_ficlone(2)).
func cloneFile(out, in *os.File) error {
	const ficlone = 0x40049409 // on every architecture but MIPS, PowerPC and SPARC, where this is ENOTTY
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, out.Fd(), ficlone, in.Fd())
	if errno != 0 {
		return errno
	}
	return nil
}

// nextData finds the next piece of a file that is no hole, or is io.EOF (lseek(2)).
func nextData(f *os.File, pos int64) (data, hole int64, err error) {
	const seekData, seekHole = 3, 4
	data, err = f.Seek(pos, seekData)
	if errors.Is(err, syscall.ENXIO) {
		return 0, 0, io.EOF
	}
	if errors.Is(err, syscall.EINVAL) && pos == 0 { // the file system does not know: all is data
		end, err := f.Seek(0, io.SeekEnd)
		if err == nil && end == 0 {
			err = io.EOF
		}
		return 0, end, err
	}
	if errors.Is(err, syscall.EINVAL) {
		return 0, 0, io.EOF
	}
	if err != nil {
		return 0, 0, err
	}
	hole, err = f.Seek(data, seekHole)
	return data, hole, err
}

// maxFiles is how many files a process may have open.
func maxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<30))
}

func openNoFollow(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
}

// own gives a copy the owner of the original, which only root may, and a file its time.
func own(path string, st fs.FileInfo) error {
	s := st.Sys().(*syscall.Stat_t)
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, int(s.Uid), int(s.Gid)); err != nil {
			return err
		}
	}
	if st.Mode().IsRegular() {
		return os.Chtimes(path, time.Time{}, st.ModTime())
	}
	return nil
}

// userOf says which process that bears the mark has something below the directory open, or is "".
func userOf(m mark, dir string) (string, error) {
	pids, err := members(m)
	if err != nil {
		return "", err
	}
	for _, pid := range pids {
		links := []string{proc(pid, "cwd"), proc(pid, "root")}
		fds, _ := os.ReadDir(proc(pid, "fd"))
		for _, fd := range fds {
			links = append(links, proc(pid, "fd/"+fd.Name()))
		}
		for _, l := range links {
			if to, err := os.Readlink(l); err == nil && (to == dir || strings.HasPrefix(to, dir+"/")) {
				name, _ := os.ReadFile(proc(pid, "comm"))
				return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(name))), nil
			}
		}
	}
	return "", nil
}
