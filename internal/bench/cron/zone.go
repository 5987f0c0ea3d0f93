package main

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// shift is by how much the clocks of the jobs are set forward and back, in turns, where the faults have dst.
const shift = 7 * time.Second

// zone is a time zone whose clock is set forward, and back again, from a time on and with so much time between, for half a day: summer time
// for those who have a minute.
func zone(from time.Time, every time.Duration) *time.Location {
	var times []int32
	for at, n := from, 0; n < int(12*time.Hour/every); at, n = at.Add(every), n+1 {
		times = append(times, int32(at.Unix()))
	}
	kinds := make([]byte, len(times)) // the first is to 1, the next to 0, and so on
	for i := range kinds {
		kinds[i] = byte((i + 1) % 2)
	}
	const names = "OFF\x00ON\x00"
	var b bytes.Buffer // RFC 8536, version 1
	b.WriteString("TZif\x00")
	b.Write(make([]byte, 15))
	big := func(v any) { _ = binary.Write(&b, binary.BigEndian, v) }
	big([]uint32{0, 0, 0, uint32(len(times)), 2, uint32(len(names))})
	big(times)
	b.Write(kinds)
	big(int32(0))
	b.Write([]byte{0, 0})
	big(int32(shift / time.Second))
	b.Write([]byte{1, 4})
	b.WriteString(names)
	z, err := time.LoadLocationFromTZData("Bench", b.Bytes())
	if err != nil {
		panic(err)
	}
	return z
}

// onTheWall has the schedule follow a clock that is set, with a policy for each n.
func (o options) onTheWall(s cronlock.Schedule, n int) cronlock.Schedule {
	if !o.has("dst") {
		return s
	}
	s.Zone = zone(o.Began, 15*time.Second)
	s.Gap = []cronlock.Gap{cronlock.GapSkip, cronlock.GapAtTransition, cronlock.GapShift}[n%3]
	s.Fold = []cronlock.Fold{cronlock.FoldFirst, cronlock.FoldSecond, cronlock.FoldBoth}[n/3%3]
	return s
}
