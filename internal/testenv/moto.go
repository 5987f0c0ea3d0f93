package testenv

import (
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/provider/local"
)

// MotoImage is the one image that there is in the beginning.
const MotoImage = "ami-0123456789abcdef0"

// motoImages replaces moto's own list, of thousands, which every call pays for.
const motoImages = `[{"ami_id": "` + MotoImage + `", "name": "debian", "owner_id": "136693071363", "public": true, "state": "available",
 "architecture": "x86_64", "virtualization_type": "hvm", "hypervisor": "xen", "root_device_name": "/dev/xvda", "root_device_type": "ebs"}]`

// AWS is moto_server, which stands for the API of AWS, and a proxy in front of it that makes it keep EC2's manners.
type AWS struct {
	*Server
	// Proxy is how it is reached: its URL("aws") is what AWS_ENDPOINT_URL would hold.
	Proxy *faultproxy.Proxy
}

// MotoOptions say how it behaves.
type MotoOptions struct {
	// Auth makes it check who calls: only users of its IAM may then, and there are none.
	Auth bool
	// Layers are in front of those that give moto EC2's manners.
	Layers []faultproxy.Layer
}

// Moto runs one moto_server. Moto differs from EC2 where tests of a driver need EC2; there the proxy corrects it:
//
//   - It knows no client tokens: see [faultproxy.ClientTokens].
//   - Terminated instances can be started, stopped, rebooted, made images of, given volumes and addresses: they fail with
//     IncorrectInstanceState.
//   - A volume can be attached in another zone, or away from another instance: InvalidVolume.ZoneMismatch, VolumeInUse.
//   - An address that moves, or whose instance ends, stays with its network interface: it is disassociated.
//   - Two images can have one name: InvalidAMIName.Duplicate. Deleted ones can be launched: InvalidAMIID.Unavailable.
//   - A promoted replica of RDS still names its source: it does not.
//   - Creating a load balancer, a target group or a listener again makes another one, or fails: it gives the one there is.
//
// What it has no like of (boot times, capacity, throttling, unhealthy targets) is a matter of the proxy's faults.
func Moto(t testing.TB, o MotoOptions) *AWS {
	t.Helper()
	path, err := exec.LookPath("moto_server")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		Missing(t, "moto_server is not installed (Python package moto[server]): "+err.Error())
	}
	env := []string{"MOTO_ENABLE_AMI_VALIDATION=true", "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION=true"}
	if o.Auth {
		env = append(env, "INITIAL_NO_AUTH_ACTION_COUNT=0")
	}
	const port = 5000
	s := launch(t, Cloud(t, map[string]local.Image{"server": {
		Port: port,
		Prepare: func(_ context.Context, m local.Machine) error {
			return os.WriteFile(filepath.Join(m.Dir, "images.json"), []byte(motoImages), 0o600)
		},
		Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{path, "-H", m.Addr.String(), "-p", strconv.Itoa(port)},
				Env: append(slices.Clone(env), "MOTO_AMIS_PATH="+filepath.Join(m.Dir, "images.json"))}
		},
	}}), 1, port, false)[0]
	m := &manners{}
	p := faultproxy.New(t, faultproxy.Options{
		Targets: map[string]string{"aws": "http://" + net.JoinHostPort(s.Host, strconv.Itoa(s.Port))},
		Name:    faultproxy.AWS,
		Layers:  append(slices.Clone(o.Layers), faultproxy.ClientTokens(), m.layer),
	})
	return &AWS{Server: s, Proxy: p}
}

// URL is the endpoint of every service.
func (a *AWS) URL() string { return a.Proxy.URL("aws") }

// manners are what moto lacks. One call that changes something is made at a time, since each is more than one of moto's.
type manners struct {
	mu       sync.Mutex
	promoted []string // replicas of RDS that were promoted
}

// refusal is an error that EC2 would answer with.
type refusal struct{ code, message string }

func (e *refusal) Error() string { return e.code + ": " + e.message }

func (m *manners) layer(next faultproxy.Handler) faultproxy.Handler {
	return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
		if strings.HasPrefix(r.Operation, "Describe") {
			reply, err := next(ctx, r)
			if r.Service == "rds" {
				reply.Body = m.forget(reply.Body)
			}
			return reply, err
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if r.Operation == "PromoteReadReplica" {
			m.promoted = append(m.promoted, r.Form.Get("DBInstanceIdentifier"))
		}
		a := asker{ctx, r, next}
		var reply *faultproxy.Response
		var err error
		switch r.Service {
		case "ec2":
			err = a.ec2()
		case "elasticloadbalancing":
			reply, err = a.balancing()
		}
		if e, ok := err.(*refusal); ok {
			return faultproxy.AWSError(r.Service, http.StatusBadRequest, e.code, e.message).Response, nil
		}
		if err != nil {
			return faultproxy.Response{}, err
		}
		if reply != nil {
			return *reply, nil
		}
		return next(ctx, r)
	}
}

// forget takes the replication of promoted instances out of a list.
func (m *manners) forget(list []byte) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	instances := strings.SplitAfter(string(list), "</DBInstance>")
	for _, id := range m.promoted {
		for n, text := range instances {
			text = regexp.MustCompile(`<(\w+)>`+regexp.QuoteMeta(id)+`</ReadReplicaDBInstanceIdentifier>`).ReplaceAllString(text, "")
			if strings.Contains(text, "<DBInstanceIdentifier>"+id+"</DBInstanceIdentifier>") {
				text = regexp.MustCompile(`<ReadReplicaSourceDBInstanceIdentifier>[^<]*</ReadReplicaSourceDBInstanceIdentifier>`).ReplaceAllString(text, "")
			}
			instances[n] = text
		}
	}
	return []byte(strings.Join(instances, ""))
}

// asker asks moto about what a request names.
type asker struct {
	ctx  context.Context
	r    faultproxy.Request
	next faultproxy.Handler
}

func (a asker) ask(into any, action string, parameters ...string) error {
	reply, err := a.r.Ask(a.ctx, a.next, action, parameters...)
	if err != nil {
		return err
	}
	if into == nil {
		return nil
	}
	return xml.Unmarshal(reply.Body, into)
}

type motoInstance struct {
	State string   `xml:"instanceState>name"`
	Zone  string   `xml:"placement>availabilityZone"`
	Names []string `xml:"blockDeviceMapping>item>deviceName"`
}

// instance finds an instance; nothing if there is none, which moto says itself.
func (a asker) instance(id string) (i motoInstance, err error) {
	var list struct {
		Items []motoInstance `xml:"reservationSet>item>instancesSet>item"`
	}
	err = a.ask(&list, "DescribeInstances", "Filter.1.Name", "instance-id", "Filter.1.Value.1", id)
	if err == nil && len(list.Items) > 0 {
		i = list.Items[0]
	}
	return i, err
}

type motoAddress struct {
	Association string `xml:"associationId"`
	Instance    string `xml:"instanceId"`
}

func (a asker) addresses(filter, value string) ([]motoAddress, error) {
	var list struct {
		Items []motoAddress `xml:"addressesSet>item"`
	}
	err := a.ask(&list, "DescribeAddresses", "Filter.1.Name", filter, "Filter.1.Value.1", value)
	return list.Items, err
}

// ec2 refuses what EC2 would, and does what moto leaves undone.
func (a asker) ec2() error {
	form := a.r.Form
	id := form.Get("InstanceId")
	switch a.r.Operation {
	case "StartInstances", "StopInstances", "RebootInstances", "TerminateInstances":
		id = form.Get("InstanceId.1")
	case "RunInstances":
		return a.image(form.Get("ImageId"))
	case "CreateImage", "AttachVolume", "AssociateAddress":
	default:
		return nil
	}
	i, err := a.instance(id)
	if err != nil {
		return err
	}
	if a.r.Operation == "TerminateInstances" {
		return a.disassociate("instance-id", id, "")
	}
	if i.State == "terminated" {
		return &refusal{"IncorrectInstanceState", fmt.Sprintf("The instance '%s' is not in a state from which it can be used: terminated", id)}
	}
	switch a.r.Operation {
	case "AttachVolume":
		return a.attach(i, form.Get("VolumeId"), id, form.Get("Device"))
	case "AssociateAddress":
		return a.disassociate("allocation-id", form.Get("AllocationId"), id)
	case "CreateImage":
		var list struct {
			IDs []string `xml:"imagesSet>item>imageId"`
		}
		err := a.ask(&list, "DescribeImages", "Owner.1", "self", "Filter.1.Name", "name", "Filter.1.Value.1", form.Get("Name"))
		if err == nil && len(list.IDs) > 0 {
			err = &refusal{"InvalidAMIName.Duplicate", fmt.Sprintf("AMI name %s is already in use by AMI %s", form.Get("Name"), list.IDs[0])}
		}
		return err
	}
	return nil
}

// image refuses an image that was deleted.
func (a asker) image(id string) error {
	reply, err := a.r.Ask(a.ctx, a.next, "DescribeImages", "ImageId.1", id)
	if err != nil || strings.Contains(string(reply.Body), "<imageId>") {
		return nil // if it has never been one, moto says so
	}
	return &refusal{"InvalidAMIID.Unavailable", fmt.Sprintf("The image ID '%s' is no longer available", id)}
}

// attach refuses an attachment that EC2 would refuse.
func (a asker) attach(i motoInstance, volume, instance, device string) error {
	var list struct {
		Items []struct {
			Zone     string `xml:"availabilityZone"`
			Instance string `xml:"attachmentSet>item>instanceId"`
		} `xml:"volumeSet>item"`
	}
	err := a.ask(&list, "DescribeVolumes", "Filter.1.Name", "volume-id", "Filter.1.Value.1", volume)
	switch {
	case err != nil || len(list.Items) == 0 || i.State == "":
		return err
	case list.Items[0].Instance != "":
		return &refusal{"VolumeInUse", fmt.Sprintf("%s is already attached to an instance", volume)}
	case list.Items[0].Zone != i.Zone:
		return &refusal{"InvalidVolume.ZoneMismatch", fmt.Sprintf("The volume '%s' is not in the same availability zone as instance '%s'", volume, instance)}
	case slices.Contains(i.Names, device):
		return &refusal{"InvalidParameterValue", fmt.Sprintf("Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)}
	}
	return nil
}

// disassociate takes addresses from the instances that have them, but for one.
func (a asker) disassociate(filter, value, but string) error {
	list, err := a.addresses(filter, value)
	for _, x := range list {
		if err == nil && x.Association != "" && x.Instance != but {
			err = a.ask(nil, "DisassociateAddress", "AssociationId", x.Association)
		}
	}
	return err
}

// balancing answers a creation whose thing exists with that thing.
func (a asker) balancing() (*faultproxy.Response, error) {
	var filter, list string
	switch a.r.Operation {
	case "CreateLoadBalancer":
		filter, list = "Names.member.1", "DescribeLoadBalancers"
	case "CreateTargetGroup":
		filter, list = "Names.member.1", "DescribeTargetGroups"
	case "CreateListener":
		return a.listener()
	default:
		return nil, nil
	}
	reply, err := a.r.Ask(a.ctx, a.next, list, filter, a.r.Form.Get("Name"))
	if err != nil {
		if strings.Contains(err.Error(), "NotFound") {
			return nil, nil
		}
		return nil, err
	}
	if !strings.Contains(string(reply.Body), "<member>") {
		return nil, nil
	}
	reply.Body = []byte(strings.ReplaceAll(string(reply.Body), list, a.r.Operation))
	return &reply, nil
}

// listener answers with the listener that the balancer has at the port.
func (a asker) listener() (*faultproxy.Response, error) {
	reply, err := a.r.Ask(a.ctx, a.next, "DescribeListeners", "LoadBalancerArn", a.r.Form.Get("LoadBalancerArn"))
	if err != nil {
		return nil, nil // moto says what is wrong
	}
	if !strings.Contains(string(reply.Body), "<Port>"+a.r.Form.Get("Port")+"</Port>") {
		return nil, nil
	}
	reply.Body = []byte(strings.ReplaceAll(string(reply.Body), "DescribeListeners", "CreateListener"))
	return &reply, nil
}
