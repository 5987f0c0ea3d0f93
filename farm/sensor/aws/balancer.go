package aws

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
)

// relist is how long a list of balancers is good for.
const relist = time.Minute

// Requests reads how many requests a second the balancers of a role take, as CloudWatch counted them in the last minute that it
// knows; of balancers with tcp, new connections. It is one value for the role as a whole, for which policies set Total. The
// balancers are those that the farm of that name has in the cloud, a provider/ec2; the client is of the same region.
//
// CloudWatch has no count for a minute without requests. Such a minute is told from one that CloudWatch does not know yet by
// the metric ConsumedLCUs, which it always has.
func Requests(client cloudwatch.GetMetricDataAPIClient, farmName string, cloud provider.Provider) (farm.Sensor, error) {
	var errs []error
	if client == nil {
		errs = append(errs, errors.New("the client is nil, want a *cloudwatch.Client"))
	}
	if farmName == "" {
		errs = append(errs, errors.New("the farm's name is empty, want that of its Spec"))
	}
	balancers, ok := provider.As[provider.Balancers](cloud)
	if !ok {
		errs = append(errs, errors.New("the cloud has no balancers, want a provider/ec2"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("aws: requests: %w", err)
	}
	type known struct {
		at   time.Time
		arns []string
	}
	var mu sync.Mutex
	roles := map[string]known{}
	return farm.SensorFunc(func(ctx context.Context, role string, _ []farm.Server) ([]scale.Sample, error) {
		mu.Lock()
		k := roles[role]
		mu.Unlock()
		if now := time.Now(); now.Sub(k.at) >= relist {
			list, err := balancers.Balancers(ctx, map[string]string{farm.TagFarm: farmName, farm.TagRole: role})
			if err != nil {
				return nil, fmt.Errorf("balancers of %s: %w", role, err)
			}
			k = known{at: now}
			for _, b := range list {
				k.arns = append(k.arns, b.ID)
			}
			mu.Lock()
			roles[role] = k
			mu.Unlock()
		}
		s, err := requests(ctx, client, k.arns)
		if err != nil || s.At.IsZero() {
			return nil, err
		}
		return []scale.Sample{s}, nil
	}), nil
}

// requests sums what the balancers took in the newest minute that is known of each; it is as old as the oldest of them, and zero
// where nothing is known of one.
func requests(ctx context.Context, client cloudwatch.GetMetricDataAPIClient, arns []string) (scale.Sample, error) {
	now := time.Now()
	in := &cloudwatch.GetMetricDataInput{ScanBy: types.ScanByTimestampDescending,
		StartTime: sdk.Time(now.Add(-delay - 2*time.Minute).Truncate(time.Minute)), EndTime: sdk.Time(now)}
	for i, arn := range arns {
		_, name, _ := strings.Cut(arn, ":loadbalancer/")
		namespace, count := "AWS/ApplicationELB", "RequestCount"
		if strings.HasPrefix(name, "net/") {
			namespace, count = "AWS/NetworkELB", "NewFlowCount"
		}
		for id, metric := range map[string]string{"count": count, "known": "ConsumedLCUs"} {
			in.MetricDataQueries = append(in.MetricDataQueries, types.MetricDataQuery{Id: sdk.String(id + strconv.Itoa(i)),
				MetricStat: &types.MetricStat{Period: sdk.Int32(60), Stat: sdk.String("Sum"), Metric: &types.Metric{Namespace: &namespace,
					MetricName: &metric, Dimensions: []types.Dimension{{Name: sdk.String("LoadBalancer"), Value: &name}}}}})
		}
	}
	if len(in.MetricDataQueries) == 0 {
		return scale.Sample{}, errors.New("the role has no balancers")
	}
	if len(in.MetricDataQueries) > mostQueries {
		return scale.Sample{}, fmt.Errorf("the role has %d balancers, want at most %d", len(arns), mostQueries/2)
	}
	values := map[string]map[time.Time]float64{}
	newest := map[string]time.Time{}
	for pages := cloudwatch.NewGetMetricDataPaginator(client, in); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return scale.Sample{}, fmt.Errorf("CloudWatch: %w", err)
		}
		for _, r := range page.MetricDataResults {
			id := sdk.ToString(r.Id)
			if values[id] == nil {
				values[id] = map[time.Time]float64{}
			}
			for j := range min(len(r.Timestamps), len(r.Values)) {
				values[id][r.Timestamps[j].UTC()] = r.Values[j]
				if r.Timestamps[j].After(newest[id]) {
					newest[id] = r.Timestamps[j].UTC()
				}
			}
		}
	}
	var sum scale.Sample
	for i := range arns {
		at := newest["known"+strconv.Itoa(i)]
		if at.IsZero() {
			return scale.Sample{}, nil
		}
		sum.Value += values["count"+strconv.Itoa(i)][at] / 60
		if end := at.Add(time.Minute); sum.At.IsZero() || end.Before(sum.At) {
			sum.At = end
		}
	}
	if sum.At.After(now) { // the period goes on
		sum.At = now
	}
	return sum, nil
}
