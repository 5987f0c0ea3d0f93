package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// fleet is memcached servers that end with the program.
type fleet struct {
	servers []cache.Server
	cmds    []*exec.Cmd
}

func start(program string, n int) (*fleet, error) {
	f := &fleet{}
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return f, err
		}
		addr := l.Addr().(*net.TCPAddr)
		l.Close()
		// One thread serves all connections. With more, each connection stays with one of them, and two clients that are
		// compared would be served by different ones, each on the processor where it happens to run.
		args := []string{"-l", "127.0.0.1", "-p", strconv.Itoa(addr.Port), "-U", "0", "-m", "64", "-t", "1"}
		if u, err := user.Current(); err == nil && u.Uid == "0" {
			args = append(args, "-u", "nobody")
		}
		cmd := exec.Command(program, args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return f, err
		}
		f.cmds = append(f.cmds, cmd)
		f.servers = append(f.servers, cache.Server{Slot: fmt.Sprintf("cache-%d", i+1), Addr: addr.String()})
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			conn, err := net.DialTimeout("tcp", addr.String(), time.Second)
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(end) {
				return f, err
			}
		}
	}
	return f, nil
}

func (f *fleet) hang(i int) error { return f.cmds[i].Process.Signal(syscall.SIGSTOP) }

func (f *fleet) end() {
	for _, cmd := range f.cmds {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
