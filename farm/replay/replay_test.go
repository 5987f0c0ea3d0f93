package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/farm/simulate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is a site.
type answer func(*http.Request) (int, error)

func (a answer) RoundTrip(r *http.Request) (*http.Response, error) {
	status, err := a(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("a page"))}, nil
}

func TestTheLoadIsTheTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, got := time.Now(), make([]int, 6)
		var mu sync.Mutex
		var paths []string
		var seconds []Report
		trace := simulate.Trace{Step: time.Minute, Requests: []float64{60, 120, 0, 600}}
		r, err := Run(t.Context(), trace, Options{Site: "http://www.qa.example:8000/", Paths: []string{"/a", "/b?c=d", "//e"}, Speed: 60, Scale: 2,
			Each: func(r Report) { seconds = append(seconds, r) },
			Transport: answer(func(r *http.Request) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				got[int(time.Since(began)/time.Second)]++
				require.Equal(t, "www.qa.example:8000", r.URL.Host)
				paths = append(paths, r.URL.RequestURI())
				return 200, nil
			})})
		require.NoError(t, err)
		require.Equal(t, []int{2, 4, 0, 20}, got[:4], "a minute is a second, twice the rate")
		require.Equal(t, []string{"/a", "/b?c=d", "//e", "/a"}, paths[:4])
		require.Equal(t, 26, r.Requests)
		require.Zero(t, r.Failed)
		require.Equal(t, map[int]int{200: 26}, r.Statuses)
		require.Equal(t, 4*time.Second, r.Length)
		require.InDelta(t, 6.5, r.Rate(), 0.01)
		require.Len(t, seconds, 4)
		sum := 0
		for _, s := range seconds {
			sum += s.Requests
		}
		require.Equal(t, 26, sum)
		require.Equal(t, seconds[2].Length+seconds[2].From, seconds[3].From)
	})
}

// A site that hangs for a second is asked all the same, and what was asked meanwhile has the latency that its clients see.
func TestASiteThatHangsIsNotAskedLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		trace := simulate.Trace{Step: time.Second, Requests: slices.Repeat([]float64{100}, 4)}
		r, err := Run(t.Context(), trace, Options{Site: "http://qa", Transport: answer(func(*http.Request) (int, error) {
			if since := time.Since(began); since >= time.Second && since < 2*time.Second {
				time.Sleep(2*time.Second - since)
			}
			return 200, nil
		})})
		require.NoError(t, err)
		require.Equal(t, 400, r.Requests)
		require.InDelta(t, 960*time.Millisecond, r.P99, float64(20*time.Millisecond), "of 400, 100 waited up to 1 s")
		require.Less(t, r.P50, 5*time.Millisecond)
		require.InDelta(t, time.Second, r.Max, float64(15*time.Millisecond))
	})
}

func TestASiteThatNeverAnswersFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := answer(func(r *http.Request) (int, error) {
			<-r.Context().Done()
			return 0, r.Context().Err()
		})
		trace := simulate.Trace{Step: time.Second, Requests: []float64{most, most}}
		r, err := Run(t.Context(), trace, Options{Site: "http://qa", Timeout: time.Minute, Transport: hang})
		require.NoError(t, err)
		require.Equal(t, 2*most, r.Requests)
		require.Equal(t, 2*most, r.Failed)
		require.Zero(t, r.P99)
		require.Contains(t, r.Failure, "10000 requests are under way")

		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("enough")
		time.AfterFunc(time.Second, func() { cancel(stopped) })
		r, err = Run(ctx, simulate.Trace{Step: time.Hour, Requests: []float64{36000}}, Options{Site: "http://qa", Transport: hang})
		require.ErrorIs(t, err, stopped)
		require.Zero(t, r.Requests, "what was given up tells nothing of the site")
	})
}

func TestWhatASiteAnswers(t *testing.T) {
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer elsewhere.Close()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "/gone":
			http.NotFound(w, r)
		case "/broken":
			http.Error(w, "no database", http.StatusInternalServerError)
		case "/cut":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
		}
	}))
	defer site.Close()
	trace := simulate.Trace{Step: time.Second, Requests: []float64{50}}
	r, err := Run(t.Context(), trace, Options{Site: site.URL, Paths: []string{"/", "/moved", "/gone", "/broken", "/cut"}, Speed: 5, Scale: 5})
	require.NoError(t, err)
	require.EqualValues(t, 50, asked.Load())
	require.Equal(t, 50, r.Requests)
	require.Equal(t, 20, r.Failed)
	require.Equal(t, map[int]int{200: 20, 302: 10, 404: 10, 500: 10}, r.Statuses)
	require.NotZero(t, r.Failure)
	require.Contains(t, r.String(), "50 requests in ")
	require.Contains(t, r.String(), "20 failed (the first: ")
	require.Contains(t, r.String(), "by status 200: 20 302: 10 404: 10 500: 10\n")
}

func TestWhatCannotBeReplayedIsNamed(t *testing.T) {
	trace := simulate.Trace{Step: time.Second, Requests: []float64{1}}
	never := answer(func(*http.Request) (int, error) { t.Error("a request was sent"); return 200, nil })
	for want, change := range map[string]func(*simulate.Trace, *Options){
		`Site is "qa.example"`:                     func(_ *simulate.Trace, o *Options) { o.Site = "qa.example" },
		`Site is "ftp://qa"`:                       func(_ *simulate.Trace, o *Options) { o.Site = "ftp://qa" },
		`Paths[1] is "b", want a path`:             func(_ *simulate.Trace, o *Options) { o.Paths = []string{"/a", "b"} },
		`Paths[0] is "http://www.example/"`:        func(_ *simulate.Trace, o *Options) { o.Paths = []string{"http://www.example/"} },
		"Speed is -1, want more than 0":            func(_ *simulate.Trace, o *Options) { o.Speed = -1 },
		"Scale is NaN, want more than 0":           func(_ *simulate.Trace, o *Options) { o.Scale = math.NaN() },
		"Timeout is -1s, want more than 0":         func(_ *simulate.Trace, o *Options) { o.Timeout = -time.Second },
		"trace: it has no steps":                   func(t *simulate.Trace, _ *Options) { t.Requests = nil },
		"trace: step 0 has -1 requests":            func(t *simulate.Trace, _ *Options) { t.Requests = []float64{-1} },
		"Site is \"http://u:xxxxx@qa\", want a UR": func(_ *simulate.Trace, o *Options) { o.Site = "http://u:secret@qa" },
	} {
		tr, o := trace, Options{Site: "http://qa", Transport: never}
		change(&tr, &o)
		_, err := Run(t.Context(), tr, o)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "secret")
	}
}

// The percentiles are within 1 % of what sorting gives.
func TestPercentiles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := rapid.SliceOfN(rapid.Int64Range(1, int64(time.Minute/time.Microsecond)), 1, 200).Draw(t, "microseconds")
		var a tally
		for _, us := range took {
			a.note(time.Duration(us)*time.Microsecond, 200, nil)
		}
		slices.Sort(took)
		for _, share := range []float64{0.5, 0.95, 0.99} {
			exact := float64(took[int(math.Ceil(share*float64(len(took))))-1])
			if got := float64(a.within(share).Nanoseconds()) / 1000; math.Abs(got-exact) > exact/100+1 {
				t.Fatalf("%v: %v, want %v", share, got, exact)
			}
		}
	})
}
