package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// copyTree copies a directory with its modes, owners, times of files and symbolic links; to must not exist. Blocks are
// shared where the file system can. Sockets, pipes and devices are left out: they mean nothing without their process.
func copyTree(ctx context.Context, from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		st, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			// Its own mode might keep this program, unless it is root, from filling it.
			if err := os.Mkdir(target, st.Mode().Perm()|0o700); err != nil {
				return err
			}
		case d.Type() == fs.ModeSymlink:
			dest, err := os.Readlink(path)
			if err != nil {
				return err
			}
			if err := os.Symlink(dest, target); err != nil {
				return err
			}
		case d.Type().IsRegular():
			if err := copyFile(ctx, path, target, st); err != nil {
				return fmt.Errorf("copying %s: %w", path, err)
			}
		default:
			return nil
		}
		return own(target, st)
	})
}

func copyFile(ctx context.Context, from, to string, st fs.FileInfo) (err error) {
	in, err := openNoFollow(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	if cloneFile(out, in) == nil {
		return out.Chmod(st.Mode().Perm())
	}
	// Holes stay holes: a database's files may have many.
	for pos := int64(0); ; {
		data, hole, err := nextData(in, pos)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := in.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(data, io.SeekStart); err != nil {
			return err
		}
		for data < hole {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := io.CopyN(out, in, min(hole-data, 64<<20))
			data += n
			if errors.Is(err, io.EOF) {
				break // it has become shorter
			}
			if err != nil {
				return err
			}
		}
		pos = hole
	}
	end, err := in.Seek(0, io.SeekEnd)
	if err == nil {
		err = out.Truncate(end)
	}
	if err == nil {
		err = out.Chmod(st.Mode().Perm()) // the umask may have taken something away
	}
	return err
}

// syncTree makes a copy survive a loss of power.
func syncTree(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.IsDir() && !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrPermission) {
			return nil // a file that its owner may not read was copied by root only
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
}
