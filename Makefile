# What the tests need beside Go: real servers, as Debian packages. They are started by the tests, in temporary directories
# and on loopback addresses; the packages' own services are not used.
PACKAGES = mariadb-server-core mariadb-client-core memcached haproxy bind9 bind9-dnsutils knot nsd zookeeper default-jre-headless iproute2
PROGRAMS = mariadbd memcached haproxy named knotd nsd dig java ip
FILES    = /usr/share/java/zookeeper.jar

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: test servers check fuzz bench

# test installs what is missing, when it may, and runs every test, one package after another: the servers are to have the
# machine to themselves. Without the servers their tests skip, and say why.
test: servers
	go test -race -shuffle=on -p 1 -timeout 15m ./...

servers:
	@missing=; for p in $(PROGRAMS); do PATH="$$PATH:/usr/sbin:/sbin" command -v $$p >/dev/null || missing="$$missing $$p"; done; \
	for f in $(FILES); do [ -e $$f ] || missing="$$missing $$f"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(PACKAGES); \
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

fuzz:
	go test -run '^$$' -fuzz FuzzHandle -fuzztime 30s ./dnsreg/nameserver

bench:
	go test -run '^$$' -bench . -benchmem ./...
