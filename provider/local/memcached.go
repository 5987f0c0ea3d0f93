package local

import (
	"fmt"
	"os"
	"strconv"
)

// Memcached is the recipe of an image that runs memcached. Its zero value is usable.
type Memcached struct {
	Port     int      // TCP; the default is 11211
	MemoryMB int      // for items; the default is 64
	Args     []string // further arguments
}

// Image gives the image, or the error that memcached is not installed.
func (r Memcached) Image() (Image, error) {
	if r.Port == 0 {
		r.Port = 11211
	}
	if r.MemoryMB == 0 {
		r.MemoryMB = 64
	}
	if r.MemoryMB < 0 {
		return Image{}, fmt.Errorf("local: Memcached.MemoryMB is %d, want at least 1, or 0 for 64", r.MemoryMB)
	}
	program, err := FindProgram("memcached", "memcached")
	if err != nil {
		return Image{}, fmt.Errorf("local: %w", err)
	}
	return Image{
		Port: r.Port,
		Command: func(m Machine) Command {
			args := []string{program, "-l", m.Addr.String(), "-p", strconv.Itoa(r.Port), "-U", "0", "-m", strconv.Itoa(r.MemoryMB)}
			if os.Geteuid() == 0 {
				args = append(args, "-u", "root") // it refuses to run as root unless told so
			}
			return Command{Args: append(args, r.Args...)}
		},
	}, nil
}
