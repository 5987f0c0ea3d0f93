package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// webConfig is what a web server is told, as its user data: where the name server is, and secrets. It knows no other address.
type webConfig struct {
	Names    netip.AddrPort `json:"names"`
	User     string         `json:"user"`
	Password string         `json:"password"`
}

// resolver asks the farm's name server, as a machine in the cloud would by its /etc/resolv.conf.
func resolver(names netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, names.String())
	}}
}

// dialer connects to names by the farm's name server.
func dialer(names netip.AddrPort) *net.Dialer {
	return &net.Dialer{Resolver: resolver(names), Timeout: time.Second}
}

// web is the application: a page that counts the rows of a table, read from replicas and kept in the cache, and a form that
// writes a row to the primary.
type web struct {
	primary, replicas *sql.DB
	pages             cache.Of[page]
	served            atomic.Int64 // pages, which are what the load is counted in
}

type page struct {
	Rows int       `json:"rows"`
	Last int       `json:"last"`
	Made time.Time `json:"made"`
}

// runWeb serves on the machine's own address. It is what the image "www" runs: this same program, started with -web.
func runWeb(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var c webConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return err
	}
	w := new(web)
	if w.primary, err = c.database("db." + zone); err != nil {
		return err
	}
	if w.replicas, err = c.database("db-replicas." + zone); err != nil {
		return err
	}
	var servers []cache.Server
	for i := range cacheServers {
		slot := "cache-" + strconv.Itoa(i+1)
		servers = append(servers, cache.Server{Slot: slot, Addr: slot + "." + zone + ":11211"})
	}
	store, err := memcached.New(memcached.Options{Servers: servers, DialContext: dialer(c.Names).DialContext})
	if err != nil {
		return err
	}
	w.pages.Store, w.pages.TTL = store, time.Second
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page", w.getPage)
	mux.HandleFunc("POST /rows", w.postRow)
	mux.HandleFunc("GET /served", func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, w.served.Load()) })
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: net.JoinHostPort(os.Getenv("SCALR_ADDR"), strconv.Itoa(webPort)), Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

// database opens a pool whose connections go to wherever the name points when they are made.
func (c webConfig) database(host string) (*sql.DB, error) {
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.DBName = c.User, c.Password, "tcp", host+":3306", "shop"
	config.DialFunc = dialer(c.Names).DialContext
	config.Timeout, config.ReadTimeout, config.WriteTimeout = time.Second, 2*time.Second, 2*time.Second
	// A server that takes no writes any more has been replaced: the driver then drops the connection, and the next one
	// goes to the new primary.
	config.RejectReadOnly = true
	config.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(8)
	db.SetConnMaxLifetime(2 * time.Second) // new replicas are found, and none is kept for ever
	return db, nil
}

func (w *web) getPage(out http.ResponseWriter, r *http.Request) {
	w.served.Add(1)
	p, err := w.pages.Get(r.Context(), "front", func(ctx context.Context) (page, error) {
		p := page{Made: time.Now()}
		err := w.replicas.QueryRowContext(ctx, "SELECT COUNT(*), COALESCE(MAX(id), 0) FROM rows_written").Scan(&p.Rows, &p.Last)
		return p, err
	})
	reply(out, p, err)
}

func (w *web) postRow(out http.ResponseWriter, r *http.Request) {
	id, err := strconv.Atoi(r.FormValue("id"))
	if err == nil {
		_, err = w.primary.ExecContext(r.Context(), "INSERT INTO rows_written (id) VALUES (?)", id)
	}
	reply(out, id, err)
}

func reply(out http.ResponseWriter, v any, err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		slog.Warn("request failed", "error", err) // into the machine's own output
		http.Error(out, "the database does not answer now", http.StatusServiceUnavailable)
		return
	}
	_ = json.NewEncoder(out).Encode(v)
}
