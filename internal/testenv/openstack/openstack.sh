#!/usr/bin/env bash
# A real OpenStack on 127.0.0.1, of Debian 12's own packages and without agents: Keystone, Glance, Placement, Nova (its fake
# hypervisor), Neutron, Cinder (its fake driver), Octavia (its no-op drivers) and Designate with BIND. Real interfaces,
# databases, quotas and errors; nothing boots inside a server. It runs as root and needs 4 GB of memory.
#
#	openstack.sh install        the packages, where one is missing
#	openstack.sh start          everything, as one that has been started before where there is one
#	openstack.sh stop           what start has started; its databases stay
#	openstack.sh run COMMAND…   install, start, the command with the variables that the tests want, stop
#
# All that it writes is below SCALR_OPENSTACK_DIR (/var/tmp/scalr-openstack).
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=${SCALR_OPENSTACK_DIR:-/var/tmp/scalr-openstack}
HOST=127.0.0.1
unset REQUESTS_CA_BUNDLE SSL_CERT_FILE CURL_CA_BUNDLE SSL_CERT_DIR http_proxy https_proxy HTTP_PROXY HTTPS_PROXY
. "$HERE/config.sh"

say() { printf 'openstack: %4ds %s\n' "$SECONDS" "$*" >&2; }

fail() {
	say "$*"
	exit 1
}

# background NAME COMMAND…: a process group of its own, whose number is kept in run/NAME.pid.
background() {
	local name=$1
	shift
	setsid "$@" >"$DIR/log/$name.log" 2>&1 </dev/null &
	echo $! >"$DIR/run/$name.pid"
}

# await PORT: until something accepts connections there.
await() {
	local n
	for n in $(seq 1 1800); do
		(exec 3<>"/dev/tcp/$HOST/$1") 2>/dev/null && return
		sleep 0.1
	done
	fail "nothing listens at port $1; see $DIR/log"
}

# up says whether it runs, all of it.
up() { [ -e "$DIR/run/up" ] && kill -0 "$(cat "$DIR/run/keystone.pid")" 2>/dev/null; }

install() {
	local missing
	missing=$({ dpkg-query -W -f '${Package} ${db:Status-Abbrev}\n' $(cat "$HERE/packages.txt") 2>/dev/null || true; } | awk '$2 == "ii" { print $1 }' | sort |
		comm -13 - <(sort "$HERE/packages.txt"))
	[ -n "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || fail "missing packages, and not root: $(echo $missing)"
	say "installs" $missing
	apt-get update -q
	# RUNLEVEL keeps the packages' own services from starting: they are not used.
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
		-o Dpkg::Options::=--force-unsafe-io $missing >"${TMPDIR:-/tmp}/scalr-openstack-install.log" ||
		fail "apt-get failed: see ${TMPDIR:-/tmp}/scalr-openstack-install.log"
	say "installed"
}

api() { # NAME PORT FILE PROCESSES: a WSGI application
	background "$1" env OS_KEYSTONE_CONFIG_DIR="$DIR/etc" OS_KEYSTONE_CONFIG_FILES=keystone.conf OS_PLACEMENT_CONFIG_DIR="$DIR/etc" \
		uwsgi_python3 --add-header "Connection: close" --post-buffering 65535 --http-socket "$HOST:$2" --wsgi-file "$3" \
		--master --processes "$4" --threads 2 --enable-threads --lazy-apps --die-on-term --thunder-lock --pyargv ""
}

python_main() { # NAME MODULE CONFIG: the main function of a module
	background "$1" /usr/bin/python3 -c "import sys; from $2 import main; sys.exit(main())" --config-file "$DIR/etc/$3.conf"
}

schemas() {
	local etc=$DIR/etc nova="nova-manage --config-file $DIR/etc/nova-alpha.conf"
	neutron-db-manage --config-file "$etc/neutron.conf" upgrade heads >"$DIR/log/db-neutron.log" 2>&1 &
	local neutron=$!
	(
		set -e
		keystone-manage --config-file "$etc/keystone.conf" db_sync
		keystone-manage --config-file "$etc/keystone.conf" fernet_setup --keystone-user root --keystone-group root
		keystone-manage --config-file "$etc/keystone.conf" credential_setup --keystone-user root --keystone-group root
		keystone-manage --config-file "$etc/keystone.conf" bootstrap --bootstrap-password "$PASSWORD" --bootstrap-region-id RegionOne \
			--bootstrap-admin-url "http://$HOST:$KEYSTONE/v3" --bootstrap-internal-url "http://$HOST:$KEYSTONE/v3" \
			--bootstrap-public-url "http://$HOST:$KEYSTONE/v3"
		glance-manage --config-file "$etc/glance.conf" db_sync
		cinder-manage --config-file "$etc/cinder.conf" db sync
		designate-manage --config-file "$etc/designate.conf" database sync
		octavia-db-manage --config-file "$etc/octavia.conf" upgrade head
	) >"$DIR/log/db-rest.log" 2>&1 &
	local rest=$!
	(
		set -e
		placement-manage --config-file "$etc/placement.conf" db sync
		$nova api_db sync
		$nova cell_v2 map_cell0 --database_connection "$(database nova_cell0)"
		$nova db sync
		$nova cell_v2 create_cell --name cell1
	) >"$DIR/log/db-nova.log" 2>&1 || fail "the schema of Nova failed: see $DIR/log/db-nova.log"
	wait $rest || fail "a schema failed: see $DIR/log/db-rest.log"
	wait $neutron || fail "the schema of Neutron failed: see $DIR/log/db-neutron.log"
}

start() {
	[ "$(id -u)" = 0 ] || fail "wants root: the packages' own files are for their users only"
	mkdir -p "$DIR"
	chmod 700 "$DIR"
	umask 077
	cd "$DIR" # python looks for modules where it is started
	mkdir -p "$DIR"/{etc,log,run,images,locks,mysql,rabbit,keys,credential,certs,named,state}
	export HOME=$DIR LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$HERE/agentless
	if [ ! -s "$DIR/password" ]; then
		(umask 077 && head -c 18 /dev/urandom | base64 | tr -dc a-zA-Z0-9 >"$DIR/password")
	fi
	PASSWORD=$(cat "$DIR/password")
	write_config
	local etc=$DIR/etc

	if [ ! -e "$DIR/schemas" ]; then
		rm -rf "$DIR"/mysql "$DIR"/rabbit "$DIR"/keys "$DIR"/credential "$DIR"/named
		mkdir -p "$DIR"/{mysql,rabbit,keys,credential,named}
		mysql_install_db --defaults-file="$etc/my.cnf" --user=root --skip-test-db >/dev/null 2>&1
	fi
	# MariaDB 10.11.19 has crashed in Nova's list of a farm's servers (free_tmp_table): it is started again.
	background mariadb bash -c 'trap "wait; exit" TERM; while :; do mariadbd --defaults-file="$0" & wait; sleep 0.2; done' "$etc/my.cnf"
	background rabbit env HOME="$DIR/rabbit" RABBITMQ_NODENAME=scalr@localhost RABBITMQ_NODE_IP_ADDRESS=$HOST \
		RABBITMQ_NODE_PORT=$RABBIT RABBITMQ_DIST_PORT=$ERLANG RABBITMQ_MNESIA_BASE="$DIR/rabbit" RABBITMQ_LOG_BASE="$DIR/rabbit" \
		RABBITMQ_PID_FILE="$DIR/run/rabbit.node" ERL_EPMD_PORT=$EPMD ERL_EPMD_ADDRESS=$HOST \
		RABBITMQ_CONFIG_FILE="$etc/rabbit" RABBITMQ_ENABLED_PLUGINS_FILE="$etc/plugins" /usr/lib/rabbitmq/bin/rabbitmq-server
	await $SQL
	if [ ! -e "$DIR/schemas" ]; then
		local sql="ALTER USER root@localhost IDENTIFIED BY '$PASSWORD'; CREATE USER root@'$HOST' IDENTIFIED BY '$PASSWORD';
			GRANT ALL ON *.* TO root@'$HOST' WITH GRANT OPTION;" name
		for name in keystone glance placement nova nova_api nova_cell0 neutron cinder designate octavia; do
			sql="$sql CREATE DATABASE $name CHARACTER SET utf8;"
		done
		mysql -S "$DIR/run/mysql.sock" -uroot <<<"$sql"
		schemas
		touch "$DIR/schemas"
		say "the schemas are there"
	fi
	await $RABBIT
	api keystone $KEYSTONE /usr/bin/keystone-wsgi-public 2
	api placement $PLACEMENT /usr/bin/placement-api 1
	await $KEYSTONE
	# The catalog comes first: the scheduler reads it when it starts.
	SCALR_PASSWORD=$PASSWORD /usr/bin/python3 "$HERE/populate.py" catalog

	python_main glance glance.cmd.api glance
	background neutron neutron-server --config-file "$etc/neutron.conf"
	python_main nova-api nova.cmd.api_os_compute nova-alpha
	python_main nova-conductor nova.cmd.conductor nova-alpha
	python_main nova-scheduler nova.cmd.scheduler nova-alpha
	# Nova looks for drivers in its own package.
	local compute="import sys, agentless_nova; sys.modules['nova.virt.agentless'] = agentless_nova; from nova.cmd.compute import main; main()" zone
	for zone in alpha beta; do
		background nova-$zone /usr/bin/python3 -c "$compute" --config-file "$etc/nova-$zone.conf"
	done
	python_main cinder-api cinder.cmd.api cinder
	python_main cinder-scheduler cinder.cmd.scheduler cinder
	python_main cinder-volume cinder.cmd.volume cinder
	background designate-central designate-central --config-file "$etc/designate.conf"
	background designate-api designate-api --config-file "$etc/designate.conf"
	background named named -g -u root -c "$etc/named.conf"
	background octavia-api env OS_OCTAVIA=1 octavia-api --config-file "$etc/octavia.conf"
	background octavia-worker octavia-worker --config-file "$etc/octavia.conf"
	local port
	for port in $GLANCE $NEUTRON $NOVA $CINDER $DESIGNATE $PLACEMENT $OCTAVIA; do await $port; done
	say "every port is open"
	if [ ! -e "$DIR/complete" ]; then
		designate-manage --config-file "$etc/designate.conf" pool update --file "$etc/pools.yaml" >"$DIR/log/designate-pool.log" 2>&1 ||
			fail "the pool of Designate failed: see $DIR/log/designate-pool.log"
		cinder-manage --config-file "$etc/cinder.conf" online_data_migrations >/dev/null 2>&1 || true
	fi
	background designate-mdns designate-mdns --config-file "$etc/designate.conf"
	background designate-worker designate-worker --config-file "$etc/designate.conf"
	background designate-producer designate-producer --config-file "$etc/designate.conf"
	SCALR_PASSWORD=$PASSWORD /usr/bin/python3 "$HERE/populate.py" all
	touch "$DIR/complete" "$DIR/run/up"
	say "is up"
}

stop() {
	local signal file
	for signal in TERM KILL; do
		for file in "$DIR"/run/*.pid; do
			[ -e "$file" ] && kill -s $signal -- "-$(cat "$file")" 2>/dev/null || true
		done
		[ $signal = KILL ] || gone || sleep 1
	done
	ERL_EPMD_PORT=$EPMD epmd -kill >/dev/null 2>&1 || true
	rm -f "$DIR"/run/*.pid "$DIR/run/up"
	say "is down"
}

# gone waits, within 10 s, until no process group is left.
gone() {
	local n file left
	for n in $(seq 1 100); do
		left=
		for file in "$DIR"/run/*.pid; do
			[ -e "$file" ] && kill -0 -- "-$(cat "$file")" 2>/dev/null && left=1
		done
		[ -n "$left" ] || return 0
		sleep 0.1
	done
	return 1
}

case ${1:-} in
install) install ;;
start)
	up && exit 0
	stop # what an interrupted start has left
	start
	;;
stop) stop ;;
run)
	shift
	install
	if ! up; then
		trap stop EXIT
		stop # what an interrupted start has left
		trap 'exit 130' INT TERM
		(start) # a subshell: its environment is not the command's
	fi
	OS_CLIENT_CONFIG_FILE=$DIR/clouds.yaml SCALR_TEST_OPENSTACK=$HOST:$DNS "$@"
	;;
*) fail "want install, start, stop or run COMMAND…" ;;
esac
