package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// freeze stops all processes that bear the mark and returns once each of their threads stands still. Those that stood
// still before are not woken by thaw.
//
// A helper wakes them when the pipe to this program breaks: processes must not stand still for ever because this program
// has died.
func freeze(ctx context.Context, m mark) (thaw func(), err error) {
	var ours []int
	var guards []func()
	thaw = func() {
		for _, pid := range ours {
			m.signal(pid, syscall.SIGCONT)
		}
		for _, end := range guards {
			end()
		}
	}
	defer func() {
		if err != nil {
			thaw()
		}
	}()
	stopped := map[int]bool{}
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		pids, err := members(m)
		if err != nil {
			return nil, err
		}
		var fresh []int
		still := true
		for _, pid := range pids {
			if stopped[pid] {
				still = still && standsStill(pid)
				continue
			}
			stopped[pid] = true
			if !standsStill(pid) {
				fresh = append(fresh, pid)
			}
		}
		if len(fresh) == 0 && still {
			return thaw, nil
		}
		if len(fresh) > 0 {
			end, err := guard(fresh)
			if err != nil {
				return nil, err
			}
			ours, guards = append(ours, fresh...), append(guards, end)
			for _, pid := range fresh {
				m.signal(pid, syscall.SIGSTOP)
			}
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, fmt.Errorf("waiting for the processes to stand still: %w", err)
		}
	}
}

// guard starts a helper that wakes the processes when end is called or this program dies.
func guard(pids []int) (end func(), err error) {
	stdin, gate, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	args := []string{"-c", `read -r end; kill -s CONT -- "$@" 2>/dev/null`, "scalr"}
	for _, pid := range pids {
		args = append(args, strconv.Itoa(pid))
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.SysProcAttr = "/", []string{}, stdin, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		gate.Close()
		return nil, err
	}
	return func() {
		gate.Close()
		cmd.Wait()
	}, nil
}

// standsStill reports whether every thread of the process is stopped. The kernel's own threads that work for it
// (io_uring) finish what was asked of them and begin nothing new.
func standsStill(pid int) bool {
	tasks, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		return true // it has ended
	}
	for _, t := range tasks {
		path := filepath.Join(proc(pid, "task"), t.Name())
		s, err := readStat(filepath.Join(path, "stat"))
		if err != nil || s.state == 'T' || s.state == 't' || s.state == 'Z' || s.state == 'X' {
			continue
		}
		if name, err := os.ReadFile(filepath.Join(path, "comm")); err == nil && strings.HasPrefix(string(name), "iou-") {
			continue
		}
		return false
	}
	return true
}
