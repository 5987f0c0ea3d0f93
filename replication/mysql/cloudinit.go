package mysql

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Where [CloudInit] puts what a member is made of. Debian's configuration reads the directory in the order of its names.
const (
	cloudConf = "/etc/mysql/mariadb.conf.d/99-scalr.cnf"
	cloudSQL  = "/etc/mysql/scalr-init.sql"
	cloudUnit = "/etc/systemd/system/mariadb.service.d/scalr.conf"
	cloudAsk  = "/usr/local/sbin/scalr-askbinlog.py"
)

//go:embed askbinlog.py
var askBinlog string

// unitWord quotes an argument of a command in a systemd unit.
func unitWord(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`).Replace(s) + `"`
}

// CloudInit gives the user data with which a plain Debian (12 or later) or Ubuntu (22.04 or later) machine becomes a member at
// its first boot: cloud-init installs the distribution's mariadb-server and starts it with [ServerConf] and [BootstrapSQL]. It
// holds the passwords: the farm's Config.UserData is where it belongs, not the spec.
//
// Before each start of the server a script, which runs in the Python that cloud-init itself needs, lets it ask its binary log
// what became of prepared transactions, as it may not by itself after it was shut down.
//
// With Config.Set the machine's data may be on a volume that was filled from a snapshot, if that is mounted before packages are
// installed: the server is masked until it has its configuration, with which it locks what is not the set's.
//
// A machine's address is not known before it boots: without s.Bind the server listens on every address, and s.ID must be set,
// to a number that no other server of the set has or ever had. Paths are the distribution's own; those that s has must exist.
// The sizes of buffers are for the caller to choose (Server.BufferPool, Server.More), as are certificates (Server.More:
// ssl_cert, ssl_key).
//
// See https://cloudinit.readthedocs.io/en/latest/reference/modules.html (bootcmd, write_files, packages, runcmd).
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
	data := s.DataDir
	if data == "" {
		data = "/var/lib/mysql"
	}
	unit := "[Service]\nExecStartPre=-/usr/bin/python3 " + cloudAsk + " " + unitWord(data) + "\n"
	run := [][]string{{"systemctl", "daemon-reload"}, {"systemctl", "enable", "mariadb"}, {"systemctl", "restart", "mariadb"}}
	var boot [][]string
	if c.Set != "" { // the package would start it without its init_file
		boot = [][]string{{"cloud-init-per", "once", "scalr-mask", "systemctl", "mask", "mariadb"}}
		run = append([][]string{{"systemctl", "unmask", "mariadb"}}, run...)
	}
	// JSON is YAML, and needs no care with quotes.
	text, err := json.MarshalIndent(struct {
		Boot     [][]string `json:"bootcmd,omitempty"`
		Update   bool       `json:"package_update"`
		Packages []string   `json:"packages"`
		Files    []file     `json:"write_files"`
		Run      [][]string `json:"runcmd"`
	}{boot, true, []string{"mariadb-server", "mariadb-backup"}, []file{
		{cloudConf, "root:root", "0644", ServerConf(s), true},
		{cloudSQL, "mysql:mysql", "0600", BootstrapSQL(c), true},
		{cloudAsk, "root:root", "0644", askBinlog, true},
		{cloudUnit, "root:root", "0644", unit, true},
	}, run}, "", " ")
	if err != nil {
		return nil, err
	}
	return []byte("#cloud-config\n" + string(text) + "\n"), nil
}
