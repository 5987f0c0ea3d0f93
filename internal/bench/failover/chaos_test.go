package main

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
)

// Whatever happens to three real servers, no acknowledged row is missing under Durability, no two servers take writes, and
// every recovery has a verdict. SCALR_CHAOS is how long to go on, as "10m"; the short form begins no round after 25 s.
func TestChaos(t *testing.T) {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	if !apart() && os.Geteuid() == 0 { // partitions need a network of their own
		testenv.Need(t, "ip")
		cmd := exec.Command(os.Args[0], "-test.run=^TestChaos$", "-test.v", "-test.timeout=60m")
		if ok := separate(cmd); ok {
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	o := options{mode: "chaos", policy: replication.Durability, runs: 1 << 30, time: 25 * time.Second, writers: 2, json: true}
	if long := os.Getenv("SCALR_CHAOS"); long != "" {
		d, err := time.ParseDuration(long)
		if err != nil {
			t.Fatal("SCALR_CHAOS is " + strconv.Quote(long) + ", want a duration such as 10m")
		}
		o.time = d
	}
	if err := run(o); err != nil {
		t.Fatal(err)
	}
}
