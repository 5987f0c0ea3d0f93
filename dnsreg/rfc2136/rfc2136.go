// Package rfc2136 is a [dnsreg.Registrar] for zones on a name server that takes dynamic updates (RFC 2136): BIND, Knot,
// PowerDNS, Windows, and package nameserver.
//
// A change set is one message, and the server makes all of it or nothing: what each change replaces is a prerequisite in
// it; where a text there is cut into other strings than it would be here, that is found out and the message sent anew. The
// zone is listed by a transfer (AXFR, RFC 5936). Everything is signed by TSIG and goes over TCP, where a reply is
// lost only with the connection; no message is sent twice. The server must let the key transfer the zone and update it:
//
//	key "farm." { algorithm hmac-sha256; secret "…"; };
//	zone "example.com" { type primary; file "…"; allow-transfer { key "farm."; };
//	                     update-policy { grant farm. zonesub ANY; }; };
package rfc2136

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// Options says which server to talk to.
type Options struct {
	// Server is host:port of the zone's primary. Required.
	Server string
	// Key signs everything. Required.
	Key tsig.Key
	// Timeout bounds one call, within its context. Default 30 s.
	Timeout time.Duration
}

// Registrar changes zones on one server. It is safe for concurrent use and keeps no connection open.
type Registrar struct{ opts Options }

var _ dnsreg.Registrar = (*Registrar)(nil)

// New checks the options. It makes no call.
func New(o Options) (*Registrar, error) {
	if _, port, err := net.SplitHostPort(o.Server); err != nil || port == "" {
		return nil, fmt.Errorf("rfc2136: Server is %q, want host:port", o.Server)
	}
	if err := o.Key.Check(); err != nil {
		return nil, fmt.Errorf("rfc2136: Key: %w", err)
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("rfc2136: Timeout is %v, want more than 0, or 0 for the default", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	return &Registrar{o}, nil
}

// Capabilities says that change sets are atomic and conditional, with any TTL. A change set that is too large for one
// message of 65535 bytes, about 1000 changes, is ErrInvalid; [dnsreg.Sync] halves it. What a changed RRset holds is in the
// message, and so there can be about 2000 addresses of type A under one name, or 1000 of type AAAA; of more than 1400 that are
// all replaced at once, Sync writes the marks in messages of their own. BIND (9.18.28 and later) takes 100 records of a
// type under a name, unless its max-records-per-type says otherwise.
func (r *Registrar) Capabilities() dnsreg.Capabilities {
	return dnsreg.Capabilities{Atomic: true, Preconditions: true}
}

// Apply makes all changes or none. When the connection breaks before the reply, the error is a *dnsreg.PartialError with
// all changes Unknown.
func (r *Registrar) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if len(changes) == 0 {
		return nil
	}
	changes, err := dnsreg.CanonicalChanges(zone, changes)
	if err != nil {
		return err
	}
	if zone, err = dnsreg.CanonicalName(zone); err != nil {
		return err
	}
	met, err := r.try(ctx, zone, changes, nil)
	if err != nil || met {
		return err
	}
	l, err := r.transfer(ctx, zone)
	if err != nil {
		return fmt.Errorf("%s: %w; and %w", zone, dnsreg.ErrConflict, err)
	}
	if err := why(l.list(), changes); err != nil {
		return err
	}
	if len(l.texts) > 0 { // all holds but for how a text is cut into strings
		if met, err = r.try(ctx, zone, changes, l.texts); err != nil || met {
			return err
		}
	}
	return fmt.Errorf("%s: %w", zone, dnsreg.ErrConflict)
}

// try sends the changes and reports whether their preconditions were met.
func (r *Registrar) try(ctx context.Context, zone string, changes []dnsreg.Change, texts map[setKey][][]byte) (met bool, err error) {
	msg, err := update(zone, changes, texts)
	if err != nil {
		return false, err
	}
	code, sent, err := r.update(ctx, zone, msg)
	switch {
	case err != nil && sent:
		return false, &dnsreg.PartialError{Unknown: changes, Err: err}
	case err != nil:
		return false, err
	}
	switch code {
	case dns.RcodeSuccess:
		return true, nil
	case dns.RcodeNXRrset, dns.RcodeYXRrset, dns.RcodeYXDomain, dns.RcodeNameError:
		return false, nil
	}
	err = refused(zone, "update", code)
	for _, c := range changes {
		if code == dns.RcodeServerFailure && c.New != nil && len(c.New.Values) > 100 {
			return false, fmt.Errorf("%w; %s %s would have %d values, and BIND takes 100 unless its max-records-per-type says otherwise",
				err, c.Name, c.Type, len(c.New.Values))
		}
	}
	return false, err
}

// update sends an update and gives the code of the reply; and whether the server may have got it.
func (r *Registrar) update(ctx context.Context, zone string, msg []byte) (code int, sent bool, err error) {
	err = r.dial(ctx, func(c *conn) error {
		sent = true
		if err := c.send(msg); err != nil {
			return err
		}
		m, err := c.receive()
		if err != nil {
			return err
		}
		code = int(m[3] & 15)
		return nil
	})
	if err != nil {
		err = fmt.Errorf("rfc2136: update of %s at %s: %w", zone, r.opts.Server, err)
	}
	return code, sent, err
}

// why finds out which precondition did not hold, since the server does not say; nil if all do.
func why(list []dnsreg.RRset, changes []dnsreg.Change) error {
	type key struct{ name, typ string }
	have := make(map[key]dnsreg.RRset, len(list))
	types := make(map[string]map[string]bool)
	for _, s := range list {
		have[key{s.Name, s.Type}] = s
		if types[s.Name] == nil {
			types[s.Name] = make(map[string]bool)
		}
		types[s.Name][s.Type] = true
	}
	for _, c := range changes {
		is, ok := have[key{c.Name, c.Type}]
		switch {
		case c.Old == nil && ok:
			return fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, dnsreg.ErrConflict, len(is.Values))
		case c.Old != nil && !ok:
			return fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, dnsreg.ErrConflict)
		case c.Old != nil && !sameValues(*c.Old, is):
			return fmt.Errorf("%s %s: %w: its values are others", c.Name, c.Type, dnsreg.ErrConflict)
		}
		if c.New == nil {
			delete(types[c.Name], c.Type)
		}
	}
	for _, c := range changes {
		others := types[c.Name]
		delete(others, c.Type)
		if c.New != nil && (c.Type == "CNAME" && len(others) > 0 || others["CNAME"]) {
			return fmt.Errorf("%s %s: %w: a CNAME stands alone", c.Name, c.Type, dnsreg.ErrInvalid)
		}
	}
	return nil
}

func sameValues(a, b dnsreg.RRset) bool { b.TTL = a.TTL; return a.Equal(b) }

// refused says what a code means that is no success.
func refused(zone, what string, code int) error {
	name := dns.RcodeToString[code]
	switch code {
	case dns.RcodeNotAuth, dns.RcodeNotZone, dns.RcodeNameError:
		return fmt.Errorf("%s: %w: the server says %s to the %s", zone, dnsreg.ErrNoZone, name, what)
	}
	return fmt.Errorf("rfc2136: the server says %s to the %s of %s", name, what, zone)
}

// conn is one connection with one exchange on it.
type conn struct {
	net.Conn
	x  tsig.Exchange
	id uint16
}

// dial opens a connection for one exchange and closes it when that is done or the context ends.
func (r *Registrar) dial(ctx context.Context, exchange func(*conn) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeout, fmt.Errorf("no answer within %v: %w", r.opts.Timeout, context.DeadlineExceeded))
	defer cancel()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.opts.Server)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		err = exchange(&conn{Conn: nc, x: tsig.Exchange{Key: r.opts.Key}})
		stop()
		nc.Close()
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return err
}

// send signs and sends the request.
func (c *conn) send(msg []byte) error {
	_, _ = rand.Read(msg[:2])
	c.id = binary.BigEndian.Uint16(msg)
	signed := c.x.Sign(msg, time.Now())
	if len(signed) > dns.MaxMsgSize {
		return fmt.Errorf("%w: the message has %d bytes", dnsreg.ErrInvalid, len(signed))
	}
	_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(signed))), signed...))
	return err
}

// receive gives the next answer, verified and without its signature.
func (c *conn) receive() ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, fmt.Errorf("the reply: %w", err)
	}
	msg := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, msg); err != nil {
		return nil, fmt.Errorf("the reply: %w", err)
	}
	if len(msg) < 12 || binary.BigEndian.Uint16(msg) != c.id || msg[2]&0x80 == 0 {
		return nil, errors.New("the reply is not to what was asked")
	}
	body, err := c.x.Verify(msg, time.Now())
	if err != nil {
		code := int(msg[3] & 15)
		if errors.Is(err, tsig.ErrUnsigned) && code == dns.RcodeNotAuth { // so says Knot; what is wrong with a key comes with a signature's record
			err = fmt.Errorf("%w: %w", dnsreg.ErrNoZone, err)
		}
		return nil, fmt.Errorf("the reply, %s: %w", dns.RcodeToString[code], err)
	}
	return body, nil
}

// question starts a message about a zone.
func question(opcode int, zone string, typ uint16) []byte {
	b := []byte{0, 0, byte(opcode << 3), 0, 0, 1, 0, 0, 0, 0, 0, 0}
	b = wire.AppendName(b, zone)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, typ), dns.ClassINET)
}
