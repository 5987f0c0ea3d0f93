package mysql

import (
	"encoding/json"
	"fmt"
)

// Where [CloudInit] puts what a member is made of. Debian's configuration reads the directory in the order of its names.
const (
	cloudConf = "/etc/mysql/mariadb.conf.d/99-scalr.cnf"
	cloudSQL  = "/etc/mysql/scalr-init.sql"
)

// CloudInit gives the user data with which a plain Debian (12 or later) or Ubuntu (22.04 or later) machine becomes a member at
// its first boot: cloud-init installs the distribution's mariadb-server and starts it with [ServerConf] and [BootstrapSQL]. It
// holds the passwords: the farm's Config.UserData is where it belongs, not the spec.
//
// A machine's address is not known before it boots: without s.Bind the server listens on every address, and s.ID must be set,
// to a number that no other server of the set has or ever had. Paths are the distribution's own; those that s has must exist.
// The sizes of buffers are for the caller to choose (Server.BufferPool, Server.More), as are certificates (Server.More:
// ssl_cert, ssl_key).
//
// See https://cloudinit.readthedocs.io/en/latest/reference/modules.html (write_files, packages, runcmd).
func CloudInit(s Server, c Config) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	switch {
	case s.id() == 0:
		return nil, fmt.Errorf("mysql: Server.ID is 0 and Server.Bind is %q, want an ID, or an IPv4 address to make one of", s.Bind)
	case s.InitFile != "":
		return nil, fmt.Errorf("mysql: Server.InitFile is %q, want none: the accounts are made by one of CloudInit's", s.InitFile)
	}
	s.InitFile = cloudSQL
	if s.Bind == "" {
		s.More = append([]string{"bind_address = *"}, s.More...) // Debian's own file says 127.0.0.1
	}
	type file struct {
		Path        string `json:"path"`
		Owner       string `json:"owner"`
		Permissions string `json:"permissions"`
		Content     string `json:"content"`
		Defer       bool   `json:"defer"` // until the packages are installed, and with them the owner
	}
	// JSON is YAML, and needs no care with quotes.
	text, err := json.MarshalIndent(struct {
		Update   bool       `json:"package_update"`
		Packages []string   `json:"packages"`
		Files    []file     `json:"write_files"`
		Run      [][]string `json:"runcmd"`
	}{true, []string{"mariadb-server", "mariadb-backup"}, []file{
		{cloudConf, "root:root", "0644", ServerConf(s), true},
		{cloudSQL, "mysql:mysql", "0600", BootstrapSQL(c), true},
	}, [][]string{{"systemctl", "enable", "mariadb"}, {"systemctl", "restart", "mariadb"}}}, "", " ")
	if err != nil {
		return nil, err
	}
	return []byte("#cloud-config\n" + string(text) + "\n"), nil
}
