// Package aws reads the metrics of Amazon's own services for a farm: any metric of CloudWatch ([CloudWatch]), also one for
// each instance, the requests that balancers take ([Requests]), and the length of an SQS queue ([Queue]).
//
// CloudWatch gives a period's value one to three minutes after its end, and the sample carries that end: a farm that scales
// by it wants a Config.MetricAge of five minutes or more. EC2 has its metrics every five minutes, and every minute
// where detailed monitoring is on.
package aws

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor"
)

// Metric names a metric of CloudWatch.
type Metric struct {
	Namespace  string            // "AWS/EC2", "AWS/ApplicationELB"
	Name       string            // "CPUUtilization", "RequestCount"
	Dimensions map[string]string // "LoadBalancer": "app/www/50dc6c495c0c9188"
	Stat       string            // "Average", "Sum", "p99"; default "Average"
	Period     time.Duration     // whole minutes; default 1 min
	// Each asks for the metric of each instance, by the dimension InstanceId. Without it there is one value, of the role as
	// a whole, for which policies set Total.
	Each bool
}

// check reports every fault of the metric's fields.
func (m Metric) check() error {
	var errs []error
	if m.Namespace == "" {
		errs = append(errs, errors.New("field Namespace is empty, want one such as AWS/EC2"))
	}
	if m.Name == "" {
		errs = append(errs, errors.New("field Name is empty, want the name of a metric"))
	}
	if m.Period < 0 || m.Period%time.Minute != 0 {
		errs = append(errs, fmt.Errorf("field Period is %v, want whole minutes", m.Period))
	}
	if _, ok := m.Dimensions["InstanceId"]; ok && m.Each {
		errs = append(errs, errors.New("field Dimensions has InstanceId, which Each sets"))
	}
	return errors.Join(errs...)
}

const (
	mostQueries = 500             // GetMetricData takes so many
	delay       = 5 * time.Minute // a value may come so late
)

// CloudWatch makes a sensor of a metric. It asks in one call, for 500 instances each.
func CloudWatch(client cloudwatch.GetMetricDataAPIClient, m Metric) (farm.Sensor, error) {
	if client == nil {
		return nil, errors.New("aws: the client is nil, want a *cloudwatch.Client")
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("aws: metric %s: %w", m.Name, err)
	}
	if m.Stat == "" {
		m.Stat = "Average"
	}
	if m.Period == 0 {
		m.Period = time.Minute
	}
	return farm.SensorFunc(func(ctx context.Context, _ string, servers []farm.Server) ([]scale.Sample, error) {
		ids := []string{""}
		if m.Each {
			ids = nil
			for _, s := range servers {
				ids = append(ids, s.ID)
			}
		}
		var all []scale.Sample
		for part := range slices.Chunk(ids, mostQueries) {
			samples, err := m.read(ctx, client, part)
			all = append(all, samples...)
			if err != nil {
				return all, err
			}
		}
		return all, nil
	}), nil
}

// read asks for the newest value of each instance; the instance "" is the role.
func (m Metric) read(ctx context.Context, client cloudwatch.GetMetricDataAPIClient, ids []string) ([]scale.Sample, error) {
	now := time.Now()
	in := &cloudwatch.GetMetricDataInput{ScanBy: types.ScanByTimestampDescending,
		StartTime: sdk.Time(now.Add(-delay - 2*m.Period).Truncate(time.Minute)), EndTime: sdk.Time(now)}
	for i, id := range ids {
		metric := &types.Metric{Namespace: &m.Namespace, MetricName: &m.Name}
		if id != "" {
			metric.Dimensions = append(metric.Dimensions, types.Dimension{Name: sdk.String("InstanceId"), Value: sdk.String(id)})
		}
		for k, v := range m.Dimensions {
			metric.Dimensions = append(metric.Dimensions, types.Dimension{Name: sdk.String(k), Value: sdk.String(v)})
		}
		in.MetricDataQueries = append(in.MetricDataQueries, types.MetricDataQuery{Id: sdk.String("m" + strconv.Itoa(i)),
			MetricStat: &types.MetricStat{Metric: metric, Period: sdk.Int32(int32(m.Period / time.Second)), Stat: &m.Stat}})
	}
	newest := make([]scale.Sample, len(ids))
	for pages := cloudwatch.NewGetMetricDataPaginator(client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s of %s: %w", m.Name, m.Namespace, err)
		}
		for _, r := range page.MetricDataResults {
			i, err := strconv.Atoi(strings.TrimPrefix(sdk.ToString(r.Id), "m"))
			if err != nil || i < 0 || i >= len(ids) {
				continue
			}
			for j := range min(len(r.Timestamps), len(r.Values)) {
				at := r.Timestamps[j].Add(m.Period) // CloudWatch names a period by its beginning
				if at.After(now) {
					at = now
				}
				if newest[i].At.IsZero() || at.After(newest[i].At) {
					newest[i] = scale.Sample{Instance: ids[i], Value: r.Values[j], At: at}
				}
			}
		}
	}
	return slices.DeleteFunc(newest, func(s scale.Sample) bool { return s.At.IsZero() }), nil
}

// QueueClient is what [Queue] needs of a *sqs.Client.
type QueueClient interface {
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
}

// Queue reads how many messages of an SQS queue wait to be received, or, with all, those that are being worked on too. SQS
// calls the figure approximate: it is right about a minute after the queue has changed. A policy sets Total.
func Queue(client QueueClient, url string, all bool) farm.Sensor {
	names := []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameApproximateNumberOfMessages}
	if all {
		names = append(names, sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible)
	}
	return sensor.Whole(func(ctx context.Context, _ string) (float64, error) {
		out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
		if err != nil {
			return 0, fmt.Errorf("queue %s: %w", url, err)
		}
		sum := 0.0
		for _, name := range names {
			v, err := strconv.ParseFloat(out.Attributes[string(name)], 64)
			if err != nil {
				return 0, fmt.Errorf("queue %s: %s is %q, want a number", url, name, out.Attributes[string(name)])
			}
			sum += v
		}
		return sum, nil
	})
}
