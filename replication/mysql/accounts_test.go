package mysql

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What an account logs in by is not copied into another set, whatever it is; what it may do, and how it must connect, is.
func TestLockedAccountsHaveNoCredentials(t *testing.T) {
	const to = "GRANT USAGE ON *.* TO `u`@`%`"
	for grant, want := range map[string]string{
		to:                                     to,
		to + " IDENTIFIED BY PASSWORD '*94BD'": to,
		to + " IDENTIFIED BY PASSWORD '*94BD' WITH GRANT OPTION":                        to + " WITH GRANT OPTION",
		to + " IDENTIFIED VIA ed25519 USING 'ZIgU'":                                     to,
		to + " IDENTIFIED VIA ed25519 USING 'ZIgU' OR unix_socket REQUIRE SSL":          to + " REQUIRE SSL",
		to + " IDENTIFIED VIA pam USING 'x' REQUIRE X509 WITH MAX_USER_CONNECTIONS 3.0": to + " REQUIRE X509 WITH MAX_USER_CONNECTIONS 3.0",
	} {
		list := locked([]userAccount{{user: "u", host: "%", create: []string{"CREATE USER `u`@`%` IDENTIFIED BY PASSWORD '*94BD'"}, grants: []string{grant}}})
		require.Equal(t, []string{want}, list[0].grants)
		require.NotContains(t, list[0].create[0], "94BD")
		require.Contains(t, list[0].create[0], "ACCOUNT LOCK")
	}
}
