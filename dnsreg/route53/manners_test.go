package route53_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/scalr-go/scalr/internal/faultproxy"
)

// set is a record set in the API's XML.
type set struct {
	Name          string
	Type          string
	TTL           string
	SetIdentifier string
	Values        []string `xml:"ResourceRecords>ResourceRecord>Value"`
}

func (s set) key() string { return s.Name + " " + s.Type + " " + s.SetIdentifier }

func (s set) same(o set) bool {
	values := func(s set) (list []string) {
		for _, v := range s.Values {
			list = append(list, strings.TrimSuffix(v, ".")) // the dot at the end of a name may be missing
		}
		slices.Sort(list)
		return list
	}
	return s.TTL == o.TTL && slices.Equal(values(s), values(o))
}

type batch struct {
	Changes []struct {
		Action string
		Set    set `xml:"ResourceRecordSet"`
	} `xml:"ChangeBatch>Changes>Change"`
}

// manners makes moto refuse what Route 53 refuses: it compares what is created and deleted with a journal, and not with what
// there is, has no limits, lets anything stand beside a CNAME, and writes asterisks as they are.
func manners() faultproxy.Layer {
	var mu sync.Mutex // one change at a time, since each is several of moto's calls
	return func(next faultproxy.Handler) faultproxy.Handler {
		return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
			path, _, _ := strings.Cut(r.Path, "?")
			if r.Service != "route53" || !strings.Contains(path, "/rrset") {
				return next(ctx, r)
			}
			if r.Method == http.MethodGet {
				reply, err := next(ctx, r)
				reply.Body = bytes.ReplaceAll(reply.Body, []byte("<Name>*."), []byte(`<Name>\052.`))
				return reply, err
			}
			mu.Lock()
			defer mu.Unlock()
			var b batch
			if err := xml.Unmarshal(r.Body, &b); err != nil {
				return faultproxy.Response{}, err
			}
			have, err := held(ctx, next, r, path)
			if err != nil {
				return faultproxy.Response{}, err
			}
			if have != nil {
				if wrong := check(b, have); len(wrong) > 0 {
					return faultproxy.AWSError(r.Service, http.StatusBadRequest, "InvalidChangeBatch", "["+strings.Join(wrong, ", ")+"]").Response, nil
				}
			}
			r.Body = bytes.ReplaceAll(r.Body, []byte("<Action>CREATE<"), []byte("<Action>UPSERT<")) // what is created is not there, as checked
			return next(ctx, r)
		}
	}
}

// held lists what the zone has; nil if there is no such zone.
func held(ctx context.Context, next faultproxy.Handler, r faultproxy.Request, path string) (map[string]set, error) {
	have := map[string]set{}
	query := ""
	for {
		ask := r
		ask.Method, ask.Body, ask.Path = http.MethodGet, nil, strings.TrimSuffix(path, "/")+query
		reply, err := next(ctx, ask)
		if err != nil || reply.Status != http.StatusOK {
			return nil, err
		}
		var page struct {
			Sets           []set `xml:"ResourceRecordSets>ResourceRecordSet"`
			IsTruncated    bool
			NextRecordName string
			NextRecordType string
		}
		if err := xml.Unmarshal(reply.Body, &page); err != nil {
			return nil, err
		}
		for _, s := range page.Sets {
			have[s.key()] = s
		}
		if !page.IsTruncated {
			return have, nil
		}
		query = "?name=" + url.QueryEscape(page.NextRecordName) + "&type=" + page.NextRecordType
	}
}

// check gives what Route 53 would say.
func check(b batch, have map[string]set) (wrong []string) {
	records, chars := 0, 0
	for _, c := range b.Changes {
		s := c.Set
		what := fmt.Sprintf("resource record set [name='%s', type='%s']", s.Name, s.Type)
		is, ok := have[s.key()]
		times := 1
		switch {
		case c.Action == "CREATE" && ok:
			wrong = append(wrong, "Tried to create "+what+" but it already exists")
		case c.Action == "DELETE" && !ok:
			wrong = append(wrong, "Tried to delete "+what+" but it was not found")
		case c.Action == "DELETE" && !is.same(s):
			wrong = append(wrong, "Tried to delete "+what+" but the values provided do not match the current values")
		case c.Action == "DELETE":
			delete(have, s.key())
		default:
			have[s.key()] = s
			if c.Action == "UPSERT" {
				times = 2
			}
		}
		records += times * len(s.Values)
		for _, v := range s.Values {
			chars += times * len(v)
		}
		if strings.HasPrefix(s.Name, "refused.") {
			wrong = append(wrong, "Invalid Resource Record: 'the values of refused. are never taken'")
		}
	}
	if records > 1000 || chars > 32000 {
		wrong = append(wrong, fmt.Sprintf("Number of records limit of 1000 exceeded, or of characters: %d, %d", records, chars))
	}
	types := map[string][]string{}
	for _, s := range have {
		types[s.Name] = append(types[s.Name], s.Type)
	}
	for name, list := range types {
		if len(list) > 1 && slices.Contains(list, "CNAME") {
			wrong = append(wrong, fmt.Sprintf("RRSet of type CNAME with DNS name %s is not permitted as it conflicts with other records with the same DNS name", name))
		}
	}
	return wrong
}
