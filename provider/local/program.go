package local

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// FindProgram finds a server's program on PATH, or where systems keep what is not on everybody's PATH. If it is not there,
// the error names the Debian package to install; it is exec.ErrNotFound.
func FindProgram(name, debianPackage string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"} {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (Debian package %s): %w", name, debianPackage, exec.ErrNotFound)
}
