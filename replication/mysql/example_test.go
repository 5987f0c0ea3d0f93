package mysql_test

import (
	"context"
	"fmt"
	"io"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// A fresh machine becomes a member by its my.cnf and the statements that it runs at each start.
func Example() {
	config := mysql.Config{
		User: "scalr", Password: "one", ReplicationUser: "replica", ReplicationPassword: "two",
	}
	engine, err := mysql.New(config)
	if err != nil {
		panic(err)
	}
	fmt.Println(config)
	fmt.Println(mysql.BootstrapSQL(config) != "", mysql.ServerConf(mysql.Server{Bind: "10.0.0.5"}) != "")

	// The old primary wrote up to 10 and died; its successor had got 9 of them and went on to 12.
	lost, exact := engine.Count("0-1-10", "0-1-9,0-2-12")
	fmt.Println(lost, exact)

	_, err = mysql.New(mysql.Config{User: "scalr", Password: "one"})
	fmt.Println(err)
	// Output:
	// {User:scalr ReplicationUser:replica TLS:false Timeout:0s}
	// true true
	// 1 true
	// Config.ReplicationUser is empty, want 1 to 128 bytes
	// Config.ReplicationPassword is empty, want 1 to 96 bytes
}

// Members are seeded by mariadb-backup, through the providers of a farm's pools: these take commands for their machines.
func ExampleMachines() {
	cloud, err := local.New(local.Options{Dir: "/var/lib/site"}) // or ssh.Wrap(…) around that of a cloud
	if err != nil {
		fmt.Println(err)
		return
	}
	pools := map[string]provider.Commands{"here": cloud} // by the name that farm.Pool has
	stop, start := local.MariaDB{}.Service()             // in a cloud, none: the server is systemd's
	_, err = mysql.New(mysql.Config{
		User: "scalr", Password: "one", ReplicationUser: "replica", ReplicationPassword: "two",
		Machines: mysql.Machines{Stop: stop, Start: start,
			Run: func(ctx context.Context, m replication.Member, args []string, stdin io.Reader, stdout io.Writer) (int, []byte, error) {
				r, err := pools[m.Pool].RunCommand(ctx, m.Machine, provider.Command{Args: args, Stdin: stdin, Stdout: stdout})
				return r.Exit, r.Output, err
			}},
	})
	fmt.Println(err)
}
