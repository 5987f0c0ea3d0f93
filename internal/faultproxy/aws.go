package faultproxy

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// AWS is an Options.Name: the service is the one that the request is signed for, and the operation the API's own:
// "ec2", "RunInstances"; "elasticloadbalancing", "CreateListener".
func AWS(r Request) (service, operation string) {
	scope := awsScope(r)
	if service = r.Target; len(scope) > 3 {
		service = scope[3]
	}
	operation = r.Form.Get("Action")
	if target := r.Header.Get("X-Amz-Target"); operation == "" && target != "" {
		operation = target[strings.LastIndexByte(target, '.')+1:]
	}
	if operation == "" {
		operation = r.Operation
	}
	return service, operation
}

// awsScope is access key, date, region, service and "aws4_request" (Signature Version 4).
func awsScope(r Request) []string {
	_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	credential, _, _ = strings.Cut(credential, ",")
	return strings.Split(credential, "/")
}

// AWSError is the fault of an error of the query protocols, as EC2 (service "ec2") or another service writes it.
func AWSError(service string, status int, code, message string) Fault {
	return Fault{Response: awsError(service, status, code, message)}
}

func awsError(service string, status int, code, message string) Response {
	code, message = html.EscapeString(code), html.EscapeString(message)
	body := fmt.Sprintf(`<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>faultproxy</RequestId></ErrorResponse>`, code, message)
	if service == "ec2" {
		body = fmt.Sprintf(`<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>faultproxy</RequestID></Response>`, code, message)
	}
	return Response{Status: status, Header: http.Header{"Content-Type": {"text/xml"}}, Body: []byte(body)}
}

// Throttled is what EC2 and the other services answer to too many calls.
func Throttled(r Request) Fault {
	if r.Service == "ec2" {
		return AWSError("ec2", http.StatusServiceUnavailable, "RequestLimitExceeded", "Request limit exceeded.")
	}
	return AWSError(r.Service, http.StatusBadRequest, "Throttling", "Rate exceeded")
}

// NoCapacity is EC2's answer where a zone has no machine of the type: an error of the server's side, by its status.
func NoCapacity(r Request) Fault {
	return AWSError("ec2", http.StatusInternalServerError, "InsufficientInstanceCapacity", fmt.Sprintf(
		"We currently do not have sufficient %s capacity in the Availability Zone you requested (%s).",
		r.Form.Get("InstanceType"), r.Form.Get("Placement.AvailabilityZone")))
}

// ClientTokens answers a request whose ClientToken has been used with the first reply to it, whatever has become of the
// thing since, or with IdempotentParameterMismatch if the request differs. Requests that failed are not remembered.
func ClientTokens() Layer {
	type answer struct {
		mu    sync.Mutex
		done  bool
		form  string
		reply Response
	}
	var mu sync.Mutex
	answers := map[string]*answer{}
	return func(next Handler) Handler {
		return func(ctx context.Context, r Request) (Response, error) {
			token := r.Form.Get("ClientToken")
			if token == "" {
				return next(ctx, r)
			}
			scope := awsScope(r)
			key := strings.Join([]string{scope[min(2, len(scope)-1)], r.Service, r.Operation, token}, " ")
			mu.Lock()
			a := answers[key]
			if a == nil {
				a = &answer{}
				answers[key] = a
			}
			mu.Unlock()
			a.mu.Lock()
			defer a.mu.Unlock()
			form := r.Form.Encode()
			switch {
			case a.done && a.form == form:
				return a.reply, nil
			case a.done:
				return awsError(r.Service, http.StatusBadRequest, "IdempotentParameterMismatch",
					"Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."), nil
			}
			reply, err := next(ctx, r)
			if err == nil && reply.Status < 300 {
				a.done, a.form, a.reply = true, form, reply
			}
			return reply, err
		}
	}
}

// made says how a thing of EC2 is created and listed.
type made struct {
	create, list string // operations
	id           string // the element with its ID in the reply to create
	set          string // the element whose items are listed
	notFound     string // the error of a call that names it
}

var ec2Things = []made{
	{"RunInstances", "DescribeInstances", "instanceId", "reservationSet", "InvalidInstanceID.NotFound"},
	{"CreateVolume", "DescribeVolumes", "volumeId", "volumeSet", "InvalidVolume.NotFound"},
	{"CreateImage", "DescribeImages", "imageId", "imagesSet", "InvalidAMIID.NotFound"},
}

// Young hides instances, volumes and images for a time after their creation, as EC2 may: lists lack them, and calls that
// name them fail with NotFound. What EC2 creates without a client token or a unique name it cannot keep from being
// created twice; so these are not hidden.
func Young(hidden time.Duration) Layer {
	var mu sync.Mutex
	young := map[string]time.Time{} // by ID
	kind := map[string]made{}
	return func(next Handler) Handler {
		return func(ctx context.Context, r Request) (Response, error) {
			if r.Service != "ec2" && r.Service != "elasticloadbalancing" {
				return next(ctx, r)
			}
			mu.Lock()
			for id, since := range young {
				if time.Since(since) > hidden {
					delete(young, id)
				}
			}
			for key, values := range r.Form {
				_, is := young[values[0]]
				if !is || strings.HasPrefix(key, "Filter.") {
					continue
				}
				mu.Unlock()
				if r.Service != "ec2" {
					return awsError(r.Service, http.StatusBadRequest, "InvalidTarget", "The following targets are not valid: "+values[0]), nil
				}
				return awsError("ec2", http.StatusBadRequest, kind[values[0]].notFound, fmt.Sprintf("The ID '%s' does not exist", values[0])), nil
			}
			mu.Unlock()
			reply, err := next(ctx, r)
			if err != nil || reply.Status >= 300 {
				return reply, err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, m := range ec2Things {
				switch r.Operation {
				case m.create:
					for _, found := range regexp.MustCompile(`<`+m.id+`>([^<]+)</`+m.id+`>`).FindAllSubmatch(reply.Body, -1) {
						id := string(found[1])
						if _, known := kind[id]; !known { // a reply that is repeated makes nothing young
							young[id], kind[id] = time.Now(), m
						}
					}
				case m.list:
					for id := range young {
						if kind[id] == m {
							reply.Body = DropItems(reply.Body, m.set, ">"+id+"<")
						}
					}
				}
			}
			return reply, nil
		}
	}
}

// DropItems removes from the element named set of an XML text those of its direct children that contain some text.
func DropItems(text []byte, set, contain string) []byte {
	if !bytes.Contains(text, []byte(contain)) {
		return text
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	var kept []byte
	last, within, begin := int64(0), 0, int64(0)
	for {
		at := d.InputOffset()
		token, err := d.RawToken()
		if err != nil {
			return append(kept, text[last:]...)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if within == 1 {
				begin = at
			}
			if within > 0 || e.Name.Local == set {
				within++
			}
		case xml.EndElement:
			if within > 0 {
				within--
			}
			if end := d.InputOffset(); within == 1 && bytes.Contains(text[begin:end], []byte(contain)) {
				kept, last = append(kept, text[last:begin]...), end
			}
		}
	}
}

// Ask makes a request of a layer's own, as whoever sent r, and gives the reply.
func (r Request) Ask(ctx context.Context, next Handler, action string, parameters ...string) (Response, error) {
	form := url.Values{"Action": {action}, "Version": {r.Form.Get("Version")}}
	for i := 0; i+1 < len(parameters); i += 2 {
		form.Set(parameters[i], parameters[i+1])
	}
	ask := r.WithForm(form)
	ask.Operation = action
	reply, err := next(ctx, ask)
	if err == nil && reply.Status >= 300 {
		err = fmt.Errorf("%s: %d %s", action, reply.Status, reply.Body)
	}
	return reply, err
}
