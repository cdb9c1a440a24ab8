# shellcheck shell=bash
# A PostgreSQL server on the machine of the node, with TLS, which pods reach by a
# Service: as where somebody else runs the database.

# start_postgres FOLDER PASSWORD: the database `countersign` of the user of that name; $FOLDER/ca.crt is the authority of its certificate.
start_postgres() {
	local folder=$1 password=$2 programs as=(setpriv --reuid=postgres --regid=postgres --init-groups)
	programs=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || programs=$(dirname "$(command -v initdb)")
	id postgres >/dev/null 2>&1 || as=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
	mkdir -m 0755 "$folder"
	{
		openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=authority of the database' \
			-keyout "$folder/ca.key" -out "$folder/ca.crt"
		openssl req -newkey rsa:2048 -nodes -subj /CN=postgres.database.svc -addext subjectAltName=DNS:postgres.database.svc \
			-keyout "$folder/server.key" -out "$folder/server.csr"
		openssl x509 -req -in "$folder/server.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -days 2 \
			-copy_extensions copy -out "$folder/server.crt"
		printf '%s' "$password" >"$folder/password"
		mkdir "$folder/data"
		chown -R "$("${as[@]}" id -u):$("${as[@]}" id -g)" "$folder"
		"${as[@]}" "$programs/initdb" --pgdata="$folder/data" --username=countersign --pwfile="$folder/password" \
			--auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync
		printf 'hostssl all all 0.0.0.0/0 scram-sha-256\n' >"$folder/data/pg_hba.conf"
	} >>"$NODE_LOGS/postgres.log" 2>&1
	"${as[@]}" "$programs/postgres" -D "$folder/data" -c "listen_addresses=$NODE_ADDRESS" -c unix_socket_directories= \
		-c ssl=on -c "ssl_cert_file=$folder/server.crt" -c "ssl_key_file=$folder/server.key" -c max_connections=200 \
		>>"$NODE_LOGS/postgres.log" 2>&1 </dev/null &
	local tries
	for ((tries = 150; tries > 0; tries--)); do
		if PGPASSWORD=$password psql --no-psqlrc --host="$NODE_ADDRESS" --username=countersign --dbname=postgres \
			--command='create database countersign' >>"$NODE_LOGS/postgres.log" 2>&1; then
			return
		fi
		sleep 0.2
	done
	return 1
}

# The Service by which pods know it, and the Secret with its URL for the operator.
database_manifest() {
	cat <<-YAML
		apiVersion: v1
		kind: Namespace
		metadata: {name: database}
		---
		apiVersion: v1
		kind: Service
		metadata: {namespace: database, name: postgres}
		spec: {ports: [{name: postgres, port: 5432}]}
		---
		apiVersion: discovery.k8s.io/v1
		kind: EndpointSlice
		metadata: {namespace: database, name: postgres, labels: {kubernetes.io/service-name: postgres}}
		addressType: IPv4
		endpoints: [{addresses: ["$NODE_ADDRESS"]}]
		ports: [{name: postgres, port: 5432}]
	YAML
}
