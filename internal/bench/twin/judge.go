package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// compare reports whether the twin has just the rows that the parent had at the position of the copy: the first so many,
// with the changes up to there, and those that had been added. The bytes of what nobody changes are the parent's.
func compare(ctx context.Context, parent, twin *site, changed map[int64]int, rows int) (n int, equal bool, err error) {
	_, p := parent.members()
	_, q := twin.members()
	theirs, ours := parent.admin(p), twin.admin(q)
	defer theirs.Close()
	defer ours.Close()
	was, err := theirs.QueryContext(ctx, "SELECT id, CRC32(pad) FROM app.t ORDER BY id")
	if err != nil {
		return 0, false, err
	}
	defer was.Close()
	is, err := ours.QueryContext(ctx, "SELECT id, v, CRC32(pad) FROM app.t ORDER BY id")
	if err != nil {
		return 0, false, err
	}
	defer is.Close()
	wrong := func(format string, args ...any) {
		if equal {
			fmt.Fprintf(os.Stderr, format+"\n", args...)
		}
		equal = false
	}
	equal = true
	var id, want, sum, wantSum int64
	var v int
	more := is.Next()
	for was.Next() {
		if err := was.Scan(&want, &wantSum); err != nil {
			return n, false, err
		}
		value, touched := changed[want]
		if want > int64(rows) && !touched {
			continue // it was added later
		}
		if !more {
			wrong("the twin lacks row %d", want)
			break
		}
		if err := is.Scan(&id, &v, &sum); err != nil {
			return n, false, err
		}
		if n++; id != want || v != value || sum != wantSum {
			wrong("the twin has row %d with the value %d and the checksum %d, want row %d with %d and %d", id, v, sum, want, value, wantSum)
			break
		}
		more = is.Next()
	}
	if equal && more {
		wrong("the twin has rows that the parent did not have")
	}
	if err := errors.Join(was.Err(), is.Err()); err != nil {
		return n, false, err
	}
	same, err := twin.sameEverywhere(ctx)
	if !same {
		wrong("the twin's servers differ")
	}
	return n, equal, err
}

// sameEverywhere compares the checksums of the farm's servers.
func (s *site) sameEverywhere(ctx context.Context) (bool, error) {
	all, _ := s.members()
	sums := map[string]bool{}
	for _, m := range all {
		db := s.admin(m)
		var text strings.Builder
		for _, table := range []string{"app.t", "app.people"} {
			var name, sum string
			if err := db.QueryRowContext(ctx, "CHECKSUM TABLE "+table).Scan(&name, &sum); err != nil {
				return false, errors.Join(err, db.Close())
			}
			text.WriteString(sum + " ")
		}
		sums[text.String()] = true
		if err := db.Close(); err != nil {
			return false, err
		}
	}
	return len(sums) == 1, nil
}

// scrubbed reports whether no address is left on any server of the twin's, and all on the parent's.
func scrubbed(ctx context.Context, parent, twin *site) (bool, error) {
	for _, s := range []*site{parent, twin} {
		all, _ := s.members()
		for _, m := range all {
			db := s.admin(m)
			var n int
			err := errors.Join(db.QueryRowContext(ctx, "SELECT COUNT(*) FROM app.addresses WHERE email LIKE '%@customer.example'").Scan(&n), db.Close())
			if err != nil {
				return false, err
			}
			if n != map[*site]int{parent: 1000}[s] {
				fmt.Fprintf(os.Stderr, "%s of %s has %d addresses\n", m.ID, s.spec.Name, n)
				return false, nil
			}
		}
	}
	return true, nil
}

// reaches says what of one farm could reach the other one.
func reaches(ctx context.Context, parent, twin *site) (found []string, err error) {
	parents, _ := parent.members()
	twins, primary := twin.members()
	accounts := func(s *site) map[string]string {
		c := s.w.admins[s.which]
		return map[string]string{c.User: c.Password, c.ReplicationUser: c.ReplicationPassword, "app": s.w.apps[s.which]}
	}
	credentials := accounts(parent)
	credentials[parent.w.reader.User] = parent.w.reader.Password
	for _, side := range []struct {
		accounts map[string]string
		others   []replication.Member
	}{{accounts(twin), parents}, {credentials, twins}} {
		for user, password := range side.accounts {
			for _, m := range side.others {
				if refused, err := refuses(ctx, user, password, m.Addr); err != nil {
					return nil, err
				} else if !refused {
					found = append(found, fmt.Sprintf("%s may log in to %s", user, m.Addr))
				}
			}
		}
	}
	for _, m := range twins { // from the twin's own machines, with all that is on them
		for user, password := range accounts(twin) {
			for _, p := range parents {
				if refused, err := refusedFrom(ctx, twin.w.cloud, m.Machine, user, password, p.Addr); err != nil {
					return nil, err
				} else if !refused {
					found = append(found, fmt.Sprintf("%s, on the machine of %s, may log in to the parent's %s", user, m.ID, p.ID))
				}
			}
			if refused, err := refusedFrom(ctx, twin.w.cloud, m.Machine, user, password, primary.Addr); err != nil || refused {
				return nil, errors.Join(err, check(!refused, "%s, on the machine of %s, may not log in to its own database", user, m.ID))
			}
		}
	}
	// The twin's own accounts do work, or nothing has been shown.
	for user, password := range accounts(twin) {
		if refused, err := refuses(ctx, user, password, primary.Addr); err != nil || refused {
			return nil, errors.Join(err, check(!refused, "%s may not log in to its own database", user))
		}
	}
	for _, m := range twins { // it cannot be made to follow the parent, and follows nobody else
		for _, p := range parents {
			if err := twin.engine.Follow(ctx, m, p); !errors.Is(err, replication.ErrAccess) {
				found = append(found, fmt.Sprintf("%s, told to follow the parent's %s: %v", m.ID, p.ID, err))
			}
			if err := twin.engine.Fence(ctx, p); !errors.Is(err, replication.ErrAccess) {
				found = append(found, fmt.Sprintf("the twin's Manager, told to fence the parent's %s: %v", p.ID, err))
			}
			if err := twin.engine.Close(p); err != nil {
				return nil, err
			}
		}
		st, err := twin.engine.Observe(ctx, m)
		if err != nil {
			return nil, err
		}
		if m.Addr != primary.Addr && st.Source != primary.Addr {
			found = append(found, fmt.Sprintf("%s follows %q, not %s", m.ID, st.Source, primary.Addr))
		}
	}
	for _, m := range parents { // no server of the parent's has transactions of the twin's, nor the other way round
		a, err1 := parent.engine.Observe(ctx, m)
		b, err2 := twin.engine.Observe(ctx, primary)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		all, _ := parent.engine.Count(a.Applied, "")
		own, _ := parent.engine.Count(a.Applied, b.Applied)
		if all != own {
			found = append(found, fmt.Sprintf("%s (%s) and the twin (%s) have transactions in common", m.ID, a.Applied, b.Applied))
		}
	}
	for _, s := range []*site{parent, twin} {
		astray, err := s.astray(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, astray...)
	}
	return found, nil
}

// astray gives the names in the farm's zone that lead to another farm or belong to one.
func (s *site) astray(ctx context.Context) (found []string, err error) {
	own := map[string]bool{}
	all, _ := s.members()
	for _, m := range all {
		host, _, _ := net.SplitHostPort(m.Addr)
		own[host] = true
	}
	records, err := s.w.names.Records(ctx, s.spec.Zone)
	if err != nil {
		return nil, err
	}
	named := 0
	for _, r := range records {
		for _, v := range r.Values {
			switch owner := "owner=farm/" + s.spec.Name + " "; {
			case r.Type == "A" && own[v] || r.Type == "TXT" && strings.Contains(v, owner):
				named++
			case r.Type == "A" || r.Type == "AAAA" || r.Type == "TXT":
				found = append(found, fmt.Sprintf("%s %s %s is none of farm %s", r.Name, r.Type, v, s.spec.Name))
			}
		}
	}
	return found, check(named > 0, "farm %s has no names: %v", s.spec.Name, records)
}

// refuses reports whether a server denies access to an account.
func refuses(ctx context.Context, user, password, addr string) (bool, error) {
	db := connect(user, password, addr)
	defer db.Close()
	err := db.PingContext(ctx)
	if e, ok := errors.AsType[*sqldriver.MySQLError](err); ok {
		return e.Number == 1045 || e.Number == 1698 || e.Number == 4151, nil // the last one: the account is locked
	}
	return false, err
}

// refusedFrom reports whether a server refuses an account whose password is given to the client on a machine.
func refusedFrom(ctx context.Context, cloud provider.Commands, machine, user, password, addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, err
	}
	result, err := cloud.RunCommand(ctx, machine, provider.Command{Env: []string{"MYSQL_PWD=" + password},
		Args: []string{"mariadb", "--no-defaults", "--connect-timeout=10", "--host=" + host, "--port=" + port, "--user=" + user, "--execute=DO 1"}})
	if err != nil || result.Exit == 0 {
		return false, err
	}
	for _, refused := range []string{"ERROR 1045 ", "ERROR 1698 ", "ERROR 4151 "} {
		if bytes.Contains(result.Output, []byte(refused)) {
			return true, nil
		}
	}
	return false, fmt.Errorf("the client on %s could not tell: %s", machine, result.Output)
}
