package dnsreg_test

import (
	"fmt"
	"testing"

	"github.com/scalr-go/scalr/dnsreg"
)

// large is what an owner wants who has 100,000 names, and a registrar that holds it.
func large(b *testing.B) (*dnsreg.Memory, []dnsreg.RRset) {
	m := memory()
	want := make([]dnsreg.RRset, 100_000)
	for i := range want {
		want[i] = set(fmt.Sprintf("n%d.%s", i, zone), "A", ttl, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
	}
	if _, err := dnsreg.Sync(b.Context(), m, zone, "shop", want); err != nil {
		b.Fatal(err)
	}
	return m, want
}

// Of 100,000 names one is other than its owner wants.
func BenchmarkDiff(b *testing.B) {
	m, want := large(b)
	have, err := m.Records(b.Context(), zone)
	if err != nil {
		b.Fatal(err)
	}
	want[500].Values = []string{"192.0.2.1"}
	b.ReportAllocs()
	for b.Loop() {
		changes, err := dnsreg.Diff(zone, "shop", have, want)
		if err != nil || len(changes) != 2 {
			b.Fatal(len(changes), err)
		}
	}
}

func BenchmarkMemoryRecords(b *testing.B) {
	m, _ := large(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Records(b.Context(), zone); err != nil {
			b.Fatal(err)
		}
	}
}
