package dnsreg_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

func TestMemoryFaults(t *testing.T) {
	m := memory()
	var calls []dnsreg.Call
	fail := dnsreg.Call{}
	m.Fault = func(_ context.Context, c dnsreg.Call) error {
		calls = append(calls, c)
		if c.Op == fail.Op && c.Done == fail.Done {
			return errDown
		}
		return nil
	}
	www := set("www."+zone, "A", ttl, "192.0.2.1")
	changes := []dnsreg.Change{{Name: www.Name, Type: "A", New: &www}}

	fail = dnsreg.Call{Op: "Apply"}
	require.ErrorIs(t, m.Apply(t.Context(), zone, changes), errDown)
	require.EqualValues(t, 1, m.Serial(zone), "it did not happen")

	fail = dnsreg.Call{Op: "Apply", Done: true}
	require.ErrorIs(t, m.Apply(t.Context(), zone, changes), errDown)
	require.EqualValues(t, 2, m.Serial(zone), "it happened, and the reply was lost")

	fail = dnsreg.Call{Op: "Records", Done: true}
	list, err := m.Records(t.Context(), zone)
	require.ErrorIs(t, err, errDown)
	require.Empty(t, list)

	fail = dnsreg.Call{}
	list, err = m.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Equal(t, www, list[2])
	require.Equal(t, []dnsreg.Call{
		{Op: "Apply", Zone: zone, Changes: changes},
		{Op: "Apply", Zone: zone, Changes: changes}, {Op: "Apply", Zone: zone, Changes: changes, Done: true},
		{Op: "Records", Zone: zone}, {Op: "Records", Zone: zone, Done: true},
		{Op: "Records", Zone: zone}, {Op: "Records", Zone: zone, Done: true},
	}, calls)
}

func TestMemorySerialAndZones(t *testing.T) {
	m := memory()
	www := set("www."+zone, "A", ttl, "192.0.2.1")
	require.EqualValues(t, 1, m.Serial("Example.com"))
	require.Zero(t, m.Serial("example.net."))
	require.NoError(t, m.Apply(t.Context(), "Example.com", []dnsreg.Change{{Name: www.Name, Type: "A", New: &www}}))
	require.EqualValues(t, 2, m.Serial(zone))
	require.NoError(t, m.Apply(t.Context(), zone, []dnsreg.Change{{Name: www.Name, Type: "A", Old: &www, New: &www}}))
	require.EqualValues(t, 2, m.Serial(zone), "nothing changed")

	_, err := new(dnsreg.Memory).Records(t.Context(), zone)
	require.ErrorIs(t, err, dnsreg.ErrNoZone)
	_, err = (&dnsreg.Memory{Zones: []string{"*.example.com."}}).Records(t.Context(), zone)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
}
