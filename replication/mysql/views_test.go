package mysql_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A view of a view can be made only when the definer of that is there and has the privileges that it needs; some of them are
// granted on views.
func TestViewsOfViewsAreCopied(t *testing.T) {
	for name, twin := range map[string]bool{"Seed": false, "Import": true} {
		t.Run(name, func(t *testing.T) {
			nodes := start(t, 2)
			source, target := nodes[0], nodes[1]
			e := engine(t, config, nodes...)
			require.NoError(t, e.Promote(t.Context(), source.Member, false))
			admin := source.admin(t)
			exec(t, admin, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT)", "INSERT INTO app.t VALUES (7)",
				"CREATE USER owner@'%' IDENTIFIED BY 'o'", "GRANT CREATE VIEW, SHOW VIEW, INSERT ON app.* TO owner@'%'", "GRANT SELECT ON app.t TO owner@'%'")
			owner := source.db(t, "owner", "o", "")
			exec(t, owner, "CREATE VIEW app.z AS SELECT i FROM app.t")
			exec(t, admin, "GRANT SELECT ON app.z TO owner@'%'")
			exec(t, owner, "CREATE VIEW app.y AS SELECT i FROM app.z")
			exec(t, admin, "GRANT SELECT ON app.y TO owner@'%'")
			exec(t, owner, "CREATE VIEW app.x AS SELECT i FROM app.y")
			with := config
			var at replication.Position
			var err error
			if twin {
				bootstrap(t, target)
				with = twinConfig
				at, err = engine(t, twinConfig, target).Import(t.Context(), target.Member, e, source.Member, nil, nil)
			} else {
				at, err = e.Seed(t.Context(), target.Member, source.Member, nil)
			}
			require.NoError(t, err)
			require.NotEmpty(t, at)
			require.Equal(t, "7", one(t, target.db(t, with.User, with.Password, ""), "SELECT i FROM app.x"))
		})
	}
}
