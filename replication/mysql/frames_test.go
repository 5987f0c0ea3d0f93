package mysql

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// What Restore reads may be anything; what is read can be written, and is read again.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("DELIMITER //scalr//\n-- {\"kind\":\"head\",\"format\":1,\"position\":\"0-1-5\"}\n-- {\"kind\":\"end\"}\n"))
	f.Add([]byte("DELIMITER //scalr//\n-- {\"kind\":\"rows\",\"size\":3}\nabc\n//scalr//\n"))
	f.Add([]byte("DELIMITER //scalr//\n-- {\"kind\":\"rows\",\"size\":1000000000}\nabc\n//scalr//\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		frames, whole := readAll(text)
		var w bytes.Buffer
		out := newFrameWriter(&w)
		for _, x := range frames {
			out.write(x)
		}
		require.NoError(t, out.flush())
		again, ok := readAll(w.Bytes())
		require.True(t, ok)
		if whole {
			require.Equal(t, len(frames), len(again))
		}
		for i := range again {
			require.Equal(t, frames[i].statement, again[i].statement)
			require.Equal(t, frames[i].Kind, again[i].Kind)
		}
	})
}

// readAll reads frames until the first that is none, and says whether that is the end.
func readAll(text []byte) (frames []frame, whole bool) {
	r, err := newFrameReader(bytes.NewReader(text))
	if err != nil {
		return nil, false
	}
	for {
		if _, err := r.r.Peek(1); errors.Is(err, io.EOF) {
			return frames, true
		}
		f, err := r.next()
		if err != nil {
			return frames, false
		}
		frames = append(frames, f)
	}
}
