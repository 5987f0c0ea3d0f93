# The configuration files of every service, in $DIR/etc. Sourced by openstack.sh.

# Ports: below 32768, where the kernel takes none for outgoing connections.
KEYSTONE=25050 GLANCE=25292 PLACEMENT=25778 NOVA=25774 NEUTRON=25696 CINDER=25776 DESIGNATE=25901 OCTAVIA=25876
SQL=23306 RABBIT=25673 ERLANG=25674 EPMD=24369 DNS=25053 RNDC=25953 MDNS=25354 HEALTH=25555

database() { echo "mysql+pymysql://root:$PASSWORD@$HOST:$SQL/$1?charset=utf8"; }

# credentials SECTION: how a service signs in at Keystone.
credentials() {
	cat <<-X
		[$1]
		auth_url = http://$HOST:$KEYSTONE/v3
		auth_type = password
		username = admin
		password = $PASSWORD
		project_name = admin
		user_domain_id = default
		project_domain_id = default
		region_name = RegionOne
	X
}

tokens() {
	credentials keystone_authtoken
	cat <<-X
		www_authenticate_uri = http://$HOST:$KEYSTONE/v3
		service_token_roles_required = true
		service_token_roles = service,admin
	X
}

# common LINE…: what all services have, with more lines of [DEFAULT].
common() {
	cat <<-X
		[DEFAULT]
		transport_url = rabbit://guest:guest@$HOST:$RABBIT/
		log_file =
		use_stderr = true
		state_path = $DIR/state
		$(printf '%s\n' "$@")
		[oslo_concurrency]
		lock_path = $DIR/locks
		[oslo_policy]
		enforce_scope = false
		[oslo_messaging_notifications]
		driver = noop
	X
}

write_config() {
	local etc=$DIR/etc
	cat >"$etc/my.cnf" <<-X
		[mysqld]
		datadir=$DIR/mysql
		port=$SQL
		bind-address=$HOST
		socket=$DIR/run/mysql.sock
		pid-file=$DIR/run/mysqld.pid
		user=root
		innodb_flush_log_at_trx_commit=2
		innodb_doublewrite=0
		sync_binlog=0
		max_connections=400
		innodb_buffer_pool_size=128M
	X
	echo '[].' >"$etc/plugins"
	echo 'loopback_users.guest = false' >"$etc/rabbit.conf"

	{
		common
		cat <<-X
			[database]
			connection = $(database keystone)
			[fernet_tokens]
			key_repository = $DIR/keys
			[credential]
			key_repository = $DIR/credential
			[token]
			provider = fernet
			[identity]
			password_hash_rounds = 4
			[cache]
			enabled = false
		X
	} >"$etc/keystone.conf"

	{
		common "bind_host = $HOST" "bind_port = $GLANCE" "workers = 1"
		cat <<-X
			[database]
			connection = $(database glance)
			[paste_deploy]
			flavor = keystone
			config_file = /etc/glance/glance-api-paste.ini
			[glance_store]
			stores = file
			default_store = file
			filesystem_store_datadir = $DIR/images
		X
		tokens
	} >"$etc/glance.conf"

	{
		common
		cat <<-X
			[placement_database]
			connection = $(database placement)
			[api]
			auth_strategy = keystone
		X
		tokens
	} >"$etc/placement.conf"

	# A compute host for each availability zone. Volumes are bound to theirs.
	local host
	for host in alpha beta; do
		{
			common "my_ip = $HOST" "host = $host" "compute_driver = agentless.Driver" "enabled_apis = osapi_compute" \
				"osapi_compute_listen = $HOST" "osapi_compute_listen_port = $NOVA" "osapi_compute_workers = 1" \
				"vif_plugging_is_fatal = false" "vif_plugging_timeout = 0" "reclaim_instance_interval = 0" \
				"sync_power_state_interval = -1" "report_interval = 5" "service_down_time = 120" "shutdown_timeout = 1"
			cat <<-X
				[api]
				auth_strategy = keystone
				[wsgi]
				api_paste_config = /etc/nova/api-paste.ini
				[database]
				connection = $(database nova)
				[api_database]
				connection = $(database nova_api)
				[conductor]
				workers = 1
				[scheduler]
				workers = 1
				discover_hosts_in_cells_interval = 5
				[quota]
				instances = 100
				cores = 100
				ram = 204800
				[glance]
				api_servers = http://$HOST:$GLANCE
			X
			credentials placement
			credentials neutron
			credentials cinder
			echo "cross_az_attach = false"
			credentials service_user
			echo "send_service_user_token = true"
			tokens
		} >"$etc/nova-$host.conf"
	done

	{
		common "bind_host = $HOST" "bind_port = $NEUTRON" "core_plugin = ml2" "service_plugins = router" \
			"auth_strategy = keystone" "api_workers = 0" "rpc_workers = 0" "send_events_interval = 0" \
			"notify_nova_on_port_status_changes = false" "notify_nova_on_port_data_changes = true" \
			"api_paste_config = /etc/neutron/api-paste.ini" \
			"router_scheduler_driver = neutron.scheduler.l3_agent_scheduler.ChanceScheduler"
		cat <<-X
			[database]
			connection = $(database neutron)
			[quotas]
			quota_floatingip = 100
			quota_port = 1000
			[ml2]
			type_drivers = local,flat
			tenant_network_types = local
			mechanism_drivers = alwaysbind
			extension_drivers =
			[ml2_type_flat]
			flat_networks = *
		X
		credentials nova
		credentials placement
		tokens
	} >"$etc/neutron.conf"

	{
		common "my_ip = $HOST" "host = alpha" "osapi_volume_listen = $HOST" "osapi_volume_listen_port = $CINDER" \
			"osapi_volume_workers = 1" "auth_strategy = keystone" "enabled_backends = alpha,beta" "default_volume_type = fake" \
			"default_availability_zone = alpha" "api_paste_config = /etc/cinder/api-paste.ini" \
			"glance_api_servers = http://$HOST:$GLANCE" "volume_clear = none" \
			"quota_volumes = 100" "quota_snapshots = 100" "quota_gigabytes = 1000"
		cat <<-X
			[database]
			connection = $(database cinder)
			[coordination]
			backend_url = file://$DIR/state
		X
		for host in alpha beta; do
			cat <<-X
				[$host]
				volume_driver = cinder.tests.fake_driver.FakeLoggingVolumeDriver
				volume_backend_name = fake
				backend_availability_zone = $host
			X
		done
		credentials nova
		credentials service_user
		echo "send_service_user_token = true"
		tokens
	} >"$etc/cinder.conf"

	{
		common | sed "s#^\[oslo_policy\]#&\nenforce_new_defaults = false#"
		cat <<-X
			[storage:sqlalchemy]
			connection = $(database designate)
			[service:api]
			listen = $HOST:$DESIGNATE
			api_base_uri = http://$HOST:$DESIGNATE/
			auth_strategy = keystone
			enable_api_v2 = true
			enabled_extensions_v2 = quotas, reports
			workers = 1
			api_paste_config = /etc/designate/api-paste.ini
			[service:central]
			workers = 1
			[service:worker]
			workers = 1
			poll_max_retries = 10
			poll_retry_interval = 1
			poll_delay = 0
			[service:producer]
			workers = 1
			[service:mdns]
			workers = 1
			listen = $HOST:$MDNS
			[coordination]
			backend_url = file://$DIR/state
		X
		tokens
	} >"$etc/designate.conf"
	[ -s "$etc/rndc.key" ] || rndc-confgen -a -c "$etc/rndc.key" -k scalr >/dev/null 2>&1
	cat >"$etc/named.conf" <<-X
		include "$etc/rndc.key";
		options {
			directory "$DIR/named"; pid-file "$DIR/run/named.own"; session-keyfile "$DIR/named/session.key";
			listen-on port $DNS { $HOST; }; listen-on-v6 { none; };
			recursion no; allow-new-zones yes; allow-notify { $HOST; }; dnssec-validation no; minimal-responses yes;
		};
		controls { inet $HOST port $RNDC allow { $HOST; } keys { "scalr"; }; };
	X
	cat >"$etc/pools.yaml" <<-X
		- name: default
		  description: BIND on loopback
		  attributes: {}
		  ns_records: [{hostname: ns1.example.test., priority: 1}]
		  nameservers: [{host: $HOST, port: $DNS}]
		  targets:
		    - type: bind9
		      masters: [{host: $HOST, port: $MDNS}]
		      options: {host: $HOST, port: $DNS, rndc_host: $HOST, rndc_port: $RNDC, rndc_key_file: $etc/rndc.key}
	X

	# Octavia's own no-op drivers stand for amphorae.
	[ -s "$DIR/certs/client.pem" ] || (
		cd "$DIR/certs"
		openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=scalr -days 3650 >/dev/null 2>&1
		cat ca.key ca.pem >client.pem
	)
	{
		common
		cat <<-X
			[api_settings]
			bind_host = $HOST
			bind_port = $OCTAVIA
			auth_strategy = keystone
			enabled_provider_drivers = amphora:no-op backed
			default_provider_driver = amphora
			allow_tls_terminated_listeners = false
			[database]
			connection = $(database octavia)
			[certificates]
			cert_generator = local_cert_generator
			cert_manager = local_cert_manager
			ca_certificate = $DIR/certs/ca.pem
			ca_private_key = $DIR/certs/ca.key
			server_certs_key_passphrase = insecure-key-do-not-use-this-key
			[haproxy_amphora]
			client_cert = $DIR/certs/client.pem
			server_ca = $DIR/certs/ca.pem
			[health_manager]
			heartbeat_key = insecure
			controller_ip_port_list = $HOST:$HEALTH
			bind_ip = $HOST
			bind_port = $HEALTH
			[controller_worker]
			workers = 1
			compute_driver = compute_noop_driver
			network_driver = network_noop_driver
			amphora_driver = amphora_noop_driver
			volume_driver = volume_noop_driver
			image_driver = image_noop_driver
			distributor_driver = distributor_noop_driver
			amp_flavor_id = 1
			amp_image_tag = amphora
			amp_boot_network_list = 9f9e2f0e-0000-4000-8000-000000000001
			amp_secgroup_list = 9f9e2f0e-0000-4000-8000-000000000002
			loadbalancer_topology = SINGLE
			client_ca = $DIR/certs/ca.pem
			[networking]
			lb_network_name = x
			[oslo_messaging]
			topic = octavia_prov
		X
		credentials service_auth
		tokens
	} >"$etc/octavia.conf"

	# How the tests sign in: as a user without a role of administration, and as the administrator.
	local cloud
	{
		echo "clouds:"
		for cloud in scalr empty admin; do
			cat <<-X
				  $cloud:
				    region_name: RegionOne
				    auth:
				      auth_url: http://$HOST:$KEYSTONE/v3
				      username: $cloud
				      password: $PASSWORD
				      project_name: $cloud
				      user_domain_id: default
				      project_domain_id: default
			X
		done
	} >"$DIR/clouds.yaml"
}
