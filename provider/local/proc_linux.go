package local

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// stat is what /proc/<pid>/stat says (proc(5)).
type stat struct {
	state   byte
	ppid    int
	threads int
	start   uint64
}

func readStat(path string) (stat, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(data))
}

func parseStat(line string) (s stat, err error) {
	// The second field is the program's name in parentheses, and may hold anything.
	f := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	if len(f) < 20 {
		return stat{}, fmt.Errorf("%q is not understood as the status of a process", line)
	}
	s.state = f[0][0]
	s.ppid, _ = strconv.Atoi(f[1])
	s.threads, _ = strconv.Atoi(f[17])
	s.start, err = strconv.ParseUint(f[19], 10, 64)
	return s, err
}

// dead: it has ended, whether or not its parent knows. The first thread of a process may have ended before the others.
func (s stat) dead() bool { return s.state == 'X' || s.state == 'Z' && s.threads <= 1 }

func proc(pid int, file string) string { return "/proc/" + strconv.Itoa(pid) + "/" + file }

func bootID() (string, error) {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data)), err
}

func identify(pid int) (procID, error) {
	s, err := readStat(proc(pid, "stat"))
	if err != nil {
		return procID{}, err
	}
	boot, err := bootID()
	return procID{PID: pid, Start: s.start, Boot: boot}, err
}

// thisBoot: the process was started since this machine was.
func (p procID) thisBoot() bool {
	boot, err := bootID()
	return err == nil && boot == p.Boot
}

func (p procID) alive() bool {
	if p.PID == 0 || !p.thisBoot() {
		return false
	}
	s, err := readStat(proc(p.PID, "stat"))
	return err == nil && s.start == p.Start && !s.dead()
}

// supervises reports whether the process is a supervisor, or is about to be one.
func supervises(pid int) bool {
	line, err := os.ReadFile(proc(pid, "cmdline"))
	if err != nil || !bytes.Contains(line, []byte("\x00"+supervisor+"\x00")) {
		return false
	}
	// The child of a supervisor looks like one until it runs the program.
	s, err := readStat(proc(pid, "stat"))
	if err != nil {
		return false
	}
	line, err = os.ReadFile(proc(s.ppid, "cmdline"))
	return err != nil || !bytes.HasPrefix(line, []byte("/bin/sh\x00-c\x00"+supervisor+"\x00"))
}

// A supervisor's line comes through a pipe, which is its standard input; then it opens another one. What a process is, is
// told by what it has, since one that is about to end has nothing any more.

// waits reports whether the process is a supervisor without a line.
func waits(pid int) bool {
	in, err := os.Readlink(proc(pid, "fd/0"))
	return err == nil && strings.HasPrefix(in, "pipe:") && supervises(pid)
}

// goesOn reports whether the process, a supervisor, has got its line.
func goesOn(pid int) bool {
	in, err := os.Readlink(proc(pid, "fd/0"))
	return err == nil && in == "/dev/null"
}

// isProgram reports whether the process is no supervisor and not about to end.
func isProgram(pid int) bool {
	line, err := os.ReadFile(proc(pid, "cmdline"))
	return err == nil && len(line) > 0 && !supervises(pid)
}

// members finds the living processes that bear the mark.
func members(m mark) ([]int, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var found []int
	for _, pid := range pids {
		if !m.on(pid) {
			continue
		}
		s, err := readStat(proc(pid, "stat"))
		if err != nil {
			continue
		}
		if s.dead() {
			if s.ppid == os.Getpid() { // only where this program is process 1, which inherits orphans
				syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			}
			continue
		}
		found = append(found, pid)
	}
	return found, nil
}

// processes are the IDs of all processes.
func processes() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, n := range names {
		if pid, err := strconv.Atoi(n); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// on reports whether the process bears the mark.
func (m mark) on(pid int) bool {
	if limits, err := os.ReadFile(proc(pid, "limits")); err == nil {
		// What belongs to a command on an instance has another soft limit, and belongs to the instance.
		if soft, hard, ok := rss(limits); ok && hard == m.hard && (soft == m.soft || m.soft == m.hard) {
			return true
		}
	}
	env, err := os.ReadFile(proc(pid, "environ"))
	return err == nil && bytes.Contains(append([]byte{0}, append(env, 0)...), []byte("\x00"+m.env+"\x00"))
}

// rss finds the two values of RLIMIT_RSS in /proc/<pid>/limits. Unlimited is no value.
func rss(limits []byte) (soft, hard uint64, ok bool) {
	_, rest, ok := bytes.Cut(limits, []byte("\nMax resident set "))
	if !ok {
		return 0, 0, false
	}
	f := bytes.Fields(rest[:min(len(rest), 80)])
	if len(f) < 2 {
		return 0, 0, false
	}
	soft, err1 := strconv.ParseUint(string(f[0]), 10, 64)
	hard, err2 := strconv.ParseUint(string(f[1]), 10, 64)
	return soft, hard, err1 == nil && err2 == nil
}

// listening gives the addresses of this machine that something listens on, as far as can be seen.
func listening() map[netip.Addr]bool {
	found := map[netip.Addr]bool{}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/udp"} {
		data, _ := os.ReadFile(file)
		for line := range strings.Lines(string(data)) {
			// "  0: 0100007F:0CEA 00000000:0000 0A …": the local address is a number as this processor stores it.
			f := strings.Fields(line)
			if len(f) < 2 || len(f[1]) != 13 {
				continue
			}
			if n, err := strconv.ParseUint(f[1][:8], 16, 32); err == nil {
				var b [4]byte
				binary.NativeEndian.PutUint32(b[:], uint32(n))
				found[netip.AddrFrom4(b)] = true
			}
		}
	}
	return found
}

// put marks a process by its limit. It can fail where an administrator has limited it already; the environment is then
// the only mark.
func (m mark) put(pid int) {
	const rlimitRSS = 5 // on every architecture but MIPS, where this is another limit, which cannot be raised so far
	limit := [2]uint64{m.soft, m.hard}
	syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), rlimitRSS, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
}

// groupLeader makes a child lead a process group of its own.
func groupLeader() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func supported() error { return nil }

// tryLockFile takes the lock on a file, which the kernel releases when this process dies. The file is created if need be.
func tryLockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			return nil, errLocked
		}
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	// Whoever had the lock may have removed the file: then this is the lock of nothing.
	mine, err1 := f.Stat()
	now, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(mine, now) {
		f.Close()
		return nil, errLocked
	}
	return func() { f.Close() }, nil
}

// readNow reads what is in a pipe without waiting. 0 or less says that nothing is there, or that it has ended.
func readNow(fd uintptr, p []byte) int {
	n, _ := syscall.Read(int(fd), p)
	return n
}
