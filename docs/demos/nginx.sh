#!/bin/sh
# nginx (Debian: apt-get install nginx-light) in a container behind a published port, and load from another container.
. "$(dirname "$0")/demo.sh"
uses site web client
command -v nginx >/dev/null || { echo 'nginx is missing: apt-get install nginx-light' >&2; exit 1; }

cat >nginx.conf <<'END'
daemon off;
user www-data;
pid /tmp/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 80; location / { return 200 "hello $remote_addr\n"; } }
}
END
title "nginx of this machine in a container; port 8080 of the host leads to it"
show minirun network create --subnet 10.13.37.0/24 --opt bridge=bridge0 site
show minirun run -d --name web --network site --ip 10.13.37.2 -p 8080:80 \
  -v /usr:/usr:ro -v ./nginx.conf:/nginx.conf:ro nettools nginx -c /nginx.conf
show minirun port web
show minirun network graph
until_true 'curl -s http://10.13.37.2/'

title "From the host: by its own address, and by 127.0.0.1"
show curl -s "http://$(host_address):8080/"
show curl -s http://127.0.0.1:8080/

title "What the container sees of it: the host's question comes from the bridge"
meanwhile minirun capture -t -q -c 2 web port 80
show curl -s http://127.0.0.1:8080/
second_terminal

title "From a container of another network: 500 requests, 50 at a time"
show minirun run --rm --name client nettools sh -c "curl -s -Z 'http://$(host_address):8080/?[1-500]' 2>/dev/null | sort | uniq -c"

title "But not past the published port: networks are isolated from each other"
show minirun run --rm --name client nettools curl -s -m 1 http://10.13.37.2/ || echo "(exit code $?)"

title "From a container of the same network, by its name"
show minirun run --rm --name client --network site nettools curl -s http://web/
show minirun run --rm --name client --network site nettools cat /etc/resolv.conf

title "The rules that do it"
show iptables -t nat -S MINIRUN-DNAT
