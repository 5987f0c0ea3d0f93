package mysql

import (
	"context"
	"crypto/rand"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// userAccount is an account or a role. Its statements hold password hashes: they are never shown.
type userAccount struct {
	user, host string
	role       bool
	create     []string // SHOW CREATE USER
	grants     []string // SHOW GRANTS
}

func (a userAccount) ident() string {
	if a.role {
		return name(a.user)
	}
	return account(a.user, a.host)
}

// public is the pseudo-role that everybody has (MariaDB 10.11).
const public = "PUBLIC"

// readAccounts reads the accounts and roles but an engine's two, the server's own, and those for the system users of the
// machine itself.
func readAccounts(ctx context.Context, t *session, but Config) ([]userAccount, error) {
	rows, err := t.rows(ctx, "SELECT user AS u, host AS h, is_role AS r FROM mysql.user WHERE user NOT IN ("+quote(but.User)+","+
		quote(but.ReplicationUser)+",'mariadb.sys') AND NOT (host = 'localhost' AND user IN ('root','mysql')) "+
		"ORDER BY is_role DESC, user, host")
	if err != nil {
		return nil, err
	}
	var list []userAccount
	for _, r := range rows {
		a := userAccount{user: r["u"], host: r["h"], role: r["r"] == "Y"}
		if !a.role {
			if a.create, err = firstColumn(ctx, t, "SHOW CREATE USER "+a.ident()); err != nil {
				return nil, fmt.Errorf("reading the account %s: %w", a.ident(), err)
			}
		}
		of := a.ident()
		if a.role && a.user == public {
			of = public
		}
		if a.grants, err = firstColumn(ctx, t, "SHOW GRANTS FOR "+of); err != nil {
			return nil, fmt.Errorf("reading the grants of %s: %w", a.ident(), err)
		}
		slices.Sort(a.grants)
		list = append(list, a)
	}
	return list, nil
}

func firstColumn(ctx context.Context, t *session, statement string) ([]string, error) {
	rows, err := t.rows(ctx, statement)
	var list []string
	for _, r := range rows {
		for _, v := range r {
			list = append(list, v)
		}
	}
	return list, err
}

// locked gives the accounts of another set as this one gets them: whoever a view or a routine runs as is there, with its
// privileges, and nobody can log in.
func locked(accounts []userAccount) (list []userAccount) {
	for _, a := range accounts {
		if !a.role {
			a.create = []string{"CREATE USER " + a.ident() + " IDENTIFIED BY " + quote(rand.Text()) + " ACCOUNT LOCK"}
		}
		a.grants = slices.DeleteFunc(slices.Clone(a.grants), func(g string) bool { return strings.HasPrefix(g, "GRANT PROXY ") })
		for i, g := range a.grants {
			a.grants[i] = identified.ReplaceAllString(g, "$1")
		}
		list = append(list, a)
	}
	return list
}

// identified is how SHOW GRANTS tells by what an account logs in, and what comes after that.
var identified = regexp.MustCompile(` IDENTIFIED (?:BY PASSWORD '[^']*'|VIA .*?)( REQUIRE .*| WITH .*|$)`)

// makeAccounts makes the accounts and roles, and drops all others.
func (c *copying) makeAccounts(ctx context.Context) error {
	accounts := c.accounts
	old, err := readAccounts(ctx, c.to, c.target.engine.config)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, a := range accounts {
		wanted[a.ident()] = true
	}
	for _, a := range old {
		switch {
		case a.role && a.user == public:
			err = c.to.exec(ctx, "REVOKE ALL PRIVILEGES, GRANT OPTION FROM "+public)
		case wanted[a.ident()]:
			continue
		case a.role:
			err = c.to.exec(ctx, "DROP ROLE IF EXISTS "+a.ident())
		default:
			err = c.to.exec(ctx, "DROP USER IF EXISTS "+a.ident())
		}
		if err != nil {
			return fmt.Errorf("dropping the account %s: %w", a.ident(), err)
		}
	}
	for _, a := range accounts {
		var statements []string
		if a.role && a.user != public {
			statements = append(statements, "CREATE OR REPLACE ROLE "+a.ident())
		}
		for _, create := range a.create {
			if rest, ok := strings.CutPrefix(create, "CREATE USER "); ok {
				create = "CREATE OR REPLACE USER " + rest
			}
			statements = append(statements, create)
		}
		if err := c.to.exec(ctx, statements...); err != nil {
			return fmt.Errorf("creating the account %s: %w", a.ident(), err)
		}
	}
	return nil
}

// grantEarly gives the accounts what they are granted on what there is by now: a view of a view can be made when the definer
// of that has its privileges.
func (c *copying) grantEarly(ctx context.Context) error {
	for _, a := range c.accounts {
		for _, grant := range a.grants {
			if strings.HasPrefix(grant, "SET DEFAULT ROLE ") || strings.HasPrefix(grant, "GRANT PROXY ") {
				continue
			}
			if err := c.to.exec(ctx, grant); err != nil && !isServer(err, errNoSuchTable) {
				return fmt.Errorf("granting to %s: %w", a.ident(), err)
			}
		}
	}
	return nil
}

// grantAccounts gives the accounts all that they are granted.
func (c *copying) grantAccounts(ctx context.Context) error {
	accounts := c.accounts
	self, err := c.to.rows(ctx, "SELECT CURRENT_USER() AS me")
	if err != nil {
		return err
	}
	user, host, _ := cutAccount(self[0]["me"])
	// A role may be granted before it has its own grants, but not before it exists; defaults come after grants.
	for _, defaults := range []bool{false, true} {
		for _, a := range accounts {
			for _, grant := range a.grants {
				if strings.HasPrefix(grant, "SET DEFAULT ROLE ") != defaults {
					continue
				}
				err := c.to.exec(ctx, grant)
				if err != nil && strings.HasPrefix(grant, "GRANT PROXY ") { // not among ALL PRIVILEGES
					return fmt.Errorf("granting PROXY to %s: as root on the target, GRANT PROXY ON ''@'%%' TO %s WITH GRANT OPTION first: %w",
						a.ident(), account(user, host), err)
				}
				if err != nil {
					return fmt.Errorf("granting to %s: %w", a.ident(), err)
				}
			}
		}
	}
	for _, a := range accounts { // a grant may set the password anew, so that it has not expired any more
		for _, create := range a.create {
			if rest, ok := strings.CutPrefix(create, "CREATE USER "); ok {
				create = "ALTER USER " + rest
			}
			if err := c.to.exec(ctx, create); err != nil {
				return fmt.Errorf("setting the account %s: %w", a.ident(), err)
			}
		}
	}
	for _, a := range accounts { // who creates a role has it, which is needed to grant it
		if a.role && a.user != public {
			if err := c.to.exec(ctx, "REVOKE "+a.ident()+" FROM "+account(user, host)); err != nil {
				return fmt.Errorf("leaving the role %s: %w", a.ident(), err)
			}
		}
	}
	return nil
}

// cutAccount splits user@host as CURRENT_USER() gives it.
func cutAccount(s string) (user, host string, ok bool) {
	i := strings.LastIndexByte(s, '@')
	if i < 0 {
		return s, "%", false
	}
	return s[:i], s[i+1:], true
}

// differAccounts names the first difference.
func differAccounts(a, b []userAccount) string {
	for i := range max(len(a), len(b)) {
		switch {
		case i >= len(a):
			return "account " + b[i].ident() + " is new"
		case i >= len(b):
			return "account " + a[i].ident() + " is missing"
		case a[i].ident() != b[i].ident():
			return "account " + a[i].ident() + " or " + b[i].ident() + " is missing"
		case !slices.Equal(a[i].create, b[i].create) || !slices.Equal(a[i].grants, b[i].grants):
			return "account " + a[i].ident() + " has another definition"
		}
	}
	return ""
}
