package mysql

import "strings"

var escapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`, "\n", `\n`, "\r", `\r`, "\x1a", `\Z`)

// quote makes a string literal, under any sql_mode without NO_BACKSLASH_ESCAPES; the engine's sessions have none.
func quote(s string) string { return "'" + escapes.Replace(s) + "'" }

// name makes an identifier.
func name(parts ...string) string {
	for i, p := range parts {
		parts[i] = "`" + strings.ReplaceAll(p, "`", "``") + "`"
	}
	return strings.Join(parts, ".")
}

// account makes user@host.
func account(user, host string) string { return name(user) + "@" + name(host) }
