# What the tests need beside Go: real servers, as Debian packages. They are started by the tests, in temporary directories
# and on loopback addresses; the packages' own services are not used.
PACKAGES = mariadb-server-core mariadb-client mariadb-backup memcached haproxy bind9 bind9-dnsutils knot nsd zookeeper default-jre-headless iproute2 openssh-server strace \
	prometheus prometheus-node-exporter
PROGRAMS = mariadbd mariadb-binlog mariadb-backup mbstream memcached haproxy named knotd nsd dig java ip sshd strace prometheus prometheus-node-exporter
FILES    = /usr/share/java/zookeeper.jar

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test test-openstack servers check fuzz bench boot chaos chaos-cron chaos-failover failover-figures chaos-dns

# test installs what is missing, when it may, and runs every test. Those of virtual time want the whole machine: they draw all that
# they draw without the race detector, and some of it with it. The others wait for servers most of the time, and run two packages
# at once, the longest first. Without the servers their tests skip, and say why.
VIRTUAL = ./farm ./farm/simulate ./replication ./cronlock
LONGEST = ./replication/mysql
test: servers
	go test -shuffle=on -p 2 -timeout 30m $(VIRTUAL)
	go test -race -shuffle=on -p 2 -timeout 30m -skip '^TestMoveIsKilledAtEveryStep$$' $(VIRTUAL) -rapid.checks 20
	go test -race -shuffle=on -p 2 -timeout 45m $(LONGEST) $$(go list ./... | grep -vxF "$$(go list $(VIRTUAL) $(LONGEST))")

# test-openstack runs the tests that need an OpenStack, against a real one: as root on Debian 12 it installs the packages (once,
# some minutes), starts them on 127.0.0.1, runs farms there and examples/hybrid over it and EC2 too, and stops what it has started.
test-openstack:
	internal/testenv/openstack/openstack.sh run sh -c 'go test -race -shuffle=on -p 1 -timeout 60m ./provider/openstack ./dnsreg/designate && \
		go test -race -shuffle=on -timeout 20m -run OpenStack ./internal/clouds && \
		OS_CLOUD=scalr go run ./examples/hybrid -json'

servers:
	@missing=; for p in $(PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	for f in $(FILES); do [ -e $$f ] || missing="$$missing $$f"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(PACKAGES); \
	else \
		echo "missing:$$missing; the tests that need them are skipped. To run them: apt-get install $(PACKAGES)"; \
	fi

# check is what a change must pass beside the tests.
check:
	@test -z "$$(gofmt -l .)" || { echo "not gofmt-ed:"; gofmt -l .; exit 1; }
	go vet ./...
	GOOS=darwin go vet ./...
	go mod tidy -diff
	go fix -diff ./...
	go run $(STATICCHECK) ./...
	for d in gocron orm toxics; do (cd internal/bench/$$d && go mod tidy -diff && go vet ./...) || exit 1; done

# fuzz runs every fuzz test for as long as FUZZ says: all that decodes what others send. One that is added is run too.
FUZZ ?= 30s
fuzz:
	@set -e; for d in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		for f in $$(go test -list '^Fuzz' $$d | grep '^Fuzz'); do \
			echo "$$d $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZ) -fuzzminimizetime 10x $$d; done; done

bench:
	go test -run '^$$' -bench . -benchmem ./...

# chaos is the long form of the tests that hurt real servers. The tests have short forms.
chaos: chaos-cron chaos-failover chaos-dns

CRON = go run ./internal/bench/cron
# An hour of faults on real ZooKeeper ensembles, and schedules in every time zone.
chaos-cron: servers
	CRON_TIMES=100 go test -count 1 -timeout 20m -v -run FollowerOnly ./cronlock/zookeeper
	CRON_TIMES=10 go test -count 1 -v -run LeaderKill ./cronlock/zookeeper
	CRON_LONG=25 go test -count 1 -run TestScheduleEqualsOracle ./cronlock
	for fault in kill,die stop cut answers skew,step,dst leader follower quorum rolling; do \
		echo "$$fault"; $(CRON) -for 30s -faults $$fault || exit 1; done
	$(CRON) -for 3m -faults all
	$(CRON) -for 160s -every 1s -takes 0s -faults outage
	$(CRON) -load -runners 50 -jobs 10000 -every 1h -timeout 10s
	cd internal/bench/gocron && go test -v -count 1 .

# Databases are hurt for ten minutes, or as long as CHAOS says.
CHAOS ?= 10m
chaos-failover: servers
	SCALR_CHAOS=$(CHAOS) go test -count=1 -timeout 60m -v -run TestChaos ./internal/bench/failover

# failover-figures measures all that replication and its pool promise (root: some runs cut connections, in a network of their own).
# It prints the summaries, and keeps every line in a temporary directory. It fails if any measurement does, after all of them.
failover-figures: servers
	@dir=$$(mktemp -d); rc=0; echo "every line is in $$dir"; go build -o $$dir/failover ./internal/bench/failover || exit 1; \
	measure() { \
		$$dir/failover -json -mode $$1 -policy $$2 -runs $$3 >$$dir/$$1-$$2.json 2>$$dir/$$1-$$2.log || \
			{ rc=1; echo "$$1 under $$2 has failed: see $$dir/$$1-$$2.log"; tail -n 1 $$dir/$$1-$$2.log; }; \
		grep '^{"summary":true' $$dir/$$1-$$2.json || true; }; \
	for policy in availability durability; do for mode in kill hang lag partition; do measure $$mode $$policy 15; done; done; \
	measure manager durability 5; measure switchover durability 20; measure reads durability 10000; measure mixed durability 100; \
	exit $$rc

# Machines of a plain Debian boot with cloud-init, as root, in namespaces of this machine but its network, from which they install.
boot:
	which mmdebstrap systemd-nspawn >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends mmdebstrap systemd-container
	dir=$$(mktemp -d) && mmdebstrap -q --variant=apt --include=systemd-sysv,cloud-init,dbus,iproute2,openssh-server bookworm $$dir/tree && \
		{ MYSQL_BOOT=$$dir/tree go test -count=1 -timeout 30m -v -run TestCloudInitBoots ./replication/mysql; rc=$$?; rm -rf $$dir; exit $$rc; }

# Ten minutes of garbage for the name server, a zone of a million names, owners who race on one name, and Zonemaster (root, and the package zonemaster-cli).
chaos-dns:
	DNS_GARBAGE=10m go test -count 1 -timeout 20m -v -run TestGarbage ./dnsreg/nameserver
	DNS_NAMES=1000000 go test -count 1 -timeout 20m -v -run CostsWhatItChanges ./dnsreg/nameserver
	go test -count 1 -timeout 20m -run TwoOwners ./dnsreg -rapid.checks 10000
	DNS_ZONEMASTER=1 go test -count 1 -timeout 20m -v -run TestZonemaster ./dnsreg/nameserver
