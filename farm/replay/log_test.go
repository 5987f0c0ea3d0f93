package replay

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/simulate"
)

const access = `127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.html?x=1 HTTP/1.0" 200 2326
192.0.2.7 - - [10/Oct/2000:13:55:38 -0700] "POST /buy HTTP/1.1" 303 -
2001:db8::1 - a b [10/Oct/2000:13:55:38 -0700] "GET http://www.shop.example/b%2Fc HTTP/1.1" 200 12 "http://x.example/" "Mozilla/5.0 (\"x\")"
192.0.2.7 - - [10/Oct/2000:20:55:37 +0000] "GET //d HTTP/2.0" 200 1
192.0.2.7 - - [10/Oct/2000:13:55:38 -0700] "\x16\x03\x01" 400 0 "-" "-"
192.0.2.7 - - [10/Oct/2000:13:55:38 -0700] "GET *" 400 0
192.0.2.7 - - [10/Oct/2000:13:55:38 -0700] "-" 408 0
192.0.2.7 - - [10/Oct/2000:13:55:38 -0700] "GET /e?q=\"f HTTP/1.1" 200 0
`

func TestReadLog(t *testing.T) {
	trace, paths, err := ReadLog(strings.NewReader(access))
	require.NoError(t, err)
	require.Equal(t, []string{"/a.html?x=1", "/b%2Fc", "//d", `/e?q=\"f`}, paths)
	require.Equal(t, simulate.Trace{Start: time.Date(2000, 10, 10, 20, 55, 36, 0, time.UTC), Step: time.Second, Requests: []float64{1, 1, 2}}, trace)

	for want, text := range map[string]string{
		"the log has no request that could be made again":                    "",
		"line 2 is no entry of an access log":                                "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 1\nsecret\n",
		`line 1: its time is "yesterday", want one such as 10/Oct/2000:13:5`: `1.2.3.4 - - [yesterday] "GET / HTTP/1.0" 200 1`,
		"want a year at most": "1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 1\n" +
			"1.2.3.4 - - [10/Oct/2002:13:55:36 -0700] \"GET / HTTP/1.0\" 200 1\n",
		"token too long": strings.Repeat("x", 2<<20),
	} {
		_, _, err := ReadLog(strings.NewReader(text))
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

// Whatever a log has in it, each path that is read can be asked for, and nowhere else than at the site.
func FuzzReadLog(f *testing.F) {
	f.Add(access)
	f.Add(`a b [10/Oct/2000:13:55:36 +0000] "GET http:///@x//y HTTP/1.1"`)
	f.Fuzz(func(t *testing.T, log string) {
		trace, paths, err := ReadLog(strings.NewReader(log))
		if err != nil {
			return
		}
		o := Options{Site: "http://qa.example", Paths: paths}
		urls, err := o.check(trace)
		require.NoError(t, err)
		for _, u := range urls {
			require.True(t, strings.HasPrefix(u, "http://qa.example/"), u)
		}
		sum := 0.0
		for _, n := range trace.Requests {
			sum += n
		}
		require.EqualValues(t, len(paths), sum)
	})
}
