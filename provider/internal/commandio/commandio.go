// Package commandio has the streams of a command that is run for provider.Commands: whoever copies from or to a caller's stream must know
// whether that one failed or the command's own end.
package commandio

import "io"

// Reader remembers the error that ended R. It is not safe for concurrent use.
type Reader struct {
	R   io.Reader
	Err error // nil at the end of R
}

func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.R.Read(p)
	if err != nil && err != io.EOF {
		r.Err = err
	}
	return n, err
}

// Writer remembers why W took no more. It is not safe for concurrent use.
type Writer struct {
	W   io.Writer
	Err error
}

func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.W.Write(p)
	w.Err = err
	return n, err
}

// limit is how much provider.CommandResult.Output has of each stream.
const limit = 1 << 20

// Output takes any amount and keeps the first 1 MiB of it.
type Output []byte

func (o *Output) Write(p []byte) (int, error) {
	*o = append(*o, p[:min(len(p), limit-len(*o))]...)
	return len(p), nil
}
