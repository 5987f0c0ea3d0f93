package rds_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/rds"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var tags = map[string]string{"scalr:farm": "shop", "scalr:role": "db"}

func spec() rds.Spec {
	return rds.Spec{ID: "shop-db-1", Engine: "mysql", Class: "db.m5.large", SizeGB: 20, User: "admin", Password: "correct-horse", Tags: tags}
}

// TestSet leads a set through its life, with the first reply to each change lost.
func TestSet(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	c, err := rds.New(t.Context(), rds.Options{Region: "eu-central-1",
		Config: &aws.Config{BaseEndpoint: aws.String(a.URL()), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}})
	require.NoError(t, err)
	lost := 0
	a.Proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		if r.Number == 1 && !strings.HasPrefix(r.Operation, "Describe") && r.Operation != "RebootDBInstance" {
			lost++
			return faultproxy.Lose
		}
		return faultproxy.Fault{}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	one, err := c.Create(ctx, spec())
	require.NoError(t, err)
	again, err := c.Create(ctx, spec())
	require.NoError(t, err)
	require.Equal(t, one.ID, again.ID)
	other := spec()
	other.Tags = map[string]string{"scalr:farm": "other"}
	_, err = c.Create(ctx, other)
	require.ErrorIs(t, err, rds.ErrExists)

	one, err = c.Wait(ctx, one.ID)
	require.NoError(t, err)
	require.NotEmpty(t, one.Addr)
	for n := 2; n <= 3; n++ {
		id := fmt.Sprintf("shop-db-%d", n)
		_, err = c.CreateReplica(ctx, id, one.ID, tags)
		require.NoError(t, err)
		_, err = c.Wait(ctx, id)
		require.NoError(t, err)
	}
	top, err := c.Topology(ctx, tags)
	require.NoError(t, err)
	require.Equal(t, "shop-db-1", top.Primary)
	require.Len(t, top.Members, 3)
	require.Equal(t, replication.RolePrimary, top.Members[0].Role)
	require.Equal(t, replication.RoleReplica, top.Members[1].Role)
	require.True(t, top.Members[1].Serves)

	require.NoError(t, c.Reboot(ctx, one.ID, false))
	_, err = c.CreateSnapshot(ctx, "shop-before", one.ID, tags)
	require.NoError(t, err)
	_, err = c.CreateSnapshot(ctx, "shop-before", one.ID, tags)
	require.NoError(t, err)
	list, err := c.Snapshots(ctx, tags)
	require.NoError(t, err)
	require.Len(t, list, 1)
	restored, err := c.Restore(ctx, "shop-copy", "shop-before", map[string]string{"scalr:farm": "copy"})
	require.NoError(t, err)
	require.Equal(t, "shop-copy", restored.ID)

	require.NoError(t, c.Promote(ctx, "shop-db-2"))
	require.NoError(t, c.Promote(ctx, "shop-db-2"), "it is a primary")
	two, err := c.Wait(ctx, "shop-db-2")
	require.NoError(t, err)
	require.Empty(t, two.Source)
	top, err = c.Topology(ctx, tags)
	require.NoError(t, err)
	require.Equal(t, "shop-db-1", top.Primary)
	require.Len(t, top.Held, 1, "two primaries are not one set")

	for _, id := range []string{"shop-db-3", "shop-db-2", "shop-db-1", "shop-copy"} {
		require.NoError(t, c.Delete(ctx, id, ""))
		require.NoError(t, c.Delete(ctx, id, ""))
	}
	require.NoError(t, c.DeleteSnapshot(ctx, "shop-before"))
	require.NoError(t, c.DeleteSnapshot(ctx, "shop-before"))
	left, err := c.Instances(ctx, nil)
	require.NoError(t, err)
	require.Empty(t, left)
	_, err = c.Instance(ctx, "shop-db-1")
	require.ErrorIs(t, err, rds.ErrNotFound)
	require.Greater(t, lost, 5)

	a.Proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		return faultproxy.AWSError("rds", 400, "InstanceQuotaExceeded", "The quota of 0 instances is used up")
	})
	_, err = c.Create(ctx, spec())
	require.ErrorIs(t, err, rds.ErrQuota)
	require.ErrorContains(t, err, "quota of 0")
	require.NotContains(t, err.Error(), "correct-horse")
}

func TestBadSpec(t *testing.T) {
	c, err := rds.New(t.Context(), rds.Options{Config: &aws.Config{Region: "eu-central-1"}})
	require.NoError(t, err)
	for field, change := range map[string]func(*rds.Spec){
		"Spec.ID":         func(s *rds.Spec) { s.ID = "1db" },
		"Spec.ID is":      func(s *rds.Spec) { s.ID = "db--1" },
		"Spec.Engine":     func(s *rds.Spec) { s.Engine = "oracle" },
		"Spec.Class":      func(s *rds.Spec) { s.Class = "m5.large" },
		"Spec.SizeGB":     func(s *rds.Spec) { s.SizeGB = 1 },
		"Spec.User":       func(s *rds.Spec) { s.User = "" },
		"Spec.Password":   func(s *rds.Spec) { s.Password = "short" },
		"Spec.BackupDays": func(s *rds.Spec) { s.BackupDays = 36 },
	} {
		s := spec()
		change(&s)
		_, err := c.Create(t.Context(), s)
		require.ErrorIs(t, err, rds.ErrInvalid)
		require.ErrorContains(t, err, field)
	}
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", spec(), spec(), spec()), "correct-horse")
	_, err = rds.New(t.Context(), rds.Options{Config: &aws.Config{}})
	require.ErrorContains(t, err, "Options.Region")
}

func ExampleSpec() {
	s := rds.Spec{ID: "shop-db-1", Engine: "mysql", Class: "db.m7g.large", SizeGB: 20, User: "admin", Password: "correct-horse"}
	fmt.Println(s.Check(), s.Password)
	s.Engine = "oracle"
	fmt.Println(s.Check())
	// Output:
	// <nil> [13 bytes]
	// rds: invalid: Spec.Engine is "oracle", want mysql, mariadb or postgres
}
