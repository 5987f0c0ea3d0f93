package rds

import (
	"fmt"
	"strings"
)

// Spec says what a primary is. Storage is encrypted, and it is not reachable from outside its VPC.
type Spec struct {
	// ID is its name: a letter, then letters, digits and single hyphens, at most 63. Required, as are the next four.
	ID string
	// Engine is "mysql", "mariadb" or "postgres".
	Engine string
	// Class is the size: "db.m7g.large".
	Class  string
	SizeGB int
	User   string
	// Password is the user's. Empty lets RDS make one and keep it in Secrets Manager.
	Password Secret
	// Version is of the engine; empty takes RDS's default.
	Version string
	// Database is created at the beginning, if it is not empty.
	Database string
	// MultiAZ keeps a synchronous standby in another zone.
	MultiAZ bool
	// BackupDays is how long automatic backups are kept, without which RDS makes no replicas; 0 means 7.
	BackupDays int
	// SubnetGroup and SecurityGroups are where it is, by name and by IDs; empty takes the default ones.
	SubnetGroup    string
	SecurityGroups []string
	Tags           map[string]string
}

// Secret is a password: it prints and marshals as its length only.
type Secret string

// String gives the length.
func (s Secret) String() string { return fmt.Sprintf("[%d bytes]", len(s)) }

// Format keeps every verb from showing more.
func (s Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Check reports what is wrong with s apart from what only RDS can know.
func (s Spec) Check() error {
	if err := checkID("Spec.ID", s.ID); err != nil {
		return err
	}
	switch {
	case s.Engine != "mysql" && s.Engine != "mariadb" && s.Engine != "postgres":
		return fmt.Errorf("rds: %w: Spec.Engine is %q, want mysql, mariadb or postgres", ErrInvalid, s.Engine)
	case !strings.HasPrefix(s.Class, "db."):
		return fmt.Errorf("rds: %w: Spec.Class is %q, want a class like db.m7g.large", ErrInvalid, s.Class)
	case s.SizeGB < 20:
		return fmt.Errorf("rds: %w: Spec.SizeGB is %d, want at least 20", ErrInvalid, s.SizeGB)
	case s.User == "":
		return fmt.Errorf("rds: %w: Spec.User is empty, want the name of the administrator", ErrInvalid)
	case s.Password != "" && len(s.Password) < 8:
		return fmt.Errorf("rds: %w: Spec.Password has %d characters, want at least 8, or none", ErrInvalid, len(s.Password))
	case s.BackupDays < 0 || s.BackupDays > 35:
		return fmt.Errorf("rds: %w: Spec.BackupDays is %d, want 1 to 35, or 0 for 7", ErrInvalid, s.BackupDays)
	}
	return nil
}

// checkID checks a name of RDS.
func checkID(field, id string) error {
	bad := id == "" || len(id) > 63 || strings.Contains(id, "--") || strings.HasSuffix(id, "-")
	for i, r := range []byte(id) {
		letter := r|0x20 >= 'a' && r|0x20 <= 'z'
		bad = bad || !letter && (i == 0 || r != '-' && (r < '0' || r > '9'))
	}
	if bad {
		return fmt.Errorf("rds: %w: %s is %q, want a letter, then letters, digits and single hyphens, at most 63", ErrInvalid, field, id)
	}
	return nil
}
