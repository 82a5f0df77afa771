//! Which processors reactors and workers run on: `reactor_cpus`, `worker_cpus`.
//!
//! A list is shared out: of more processors than users each gets every so-manieth, of fewer users
//! share one. Task workers and user processes, whose work is long or blocks, may use the whole list.

use std::{io, path::Path};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors in a list such as `0-3,6`; none if it is empty.
pub(crate) fn parse(list: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    if list.trim().is_empty() {
        return Ok(cpus);
    }
    let wrong = |part: &str| {
        format!("must be a list of processors such as 0-3,6, and {part:?} is none of it")
    };
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let number = text.trim().parse::<usize>().ok();
            number.filter(|&number| number < CpuSet::MAX_CPU)
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(wrong(part));
        };
        if first > last {
            return Err(wrong(part));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("names processor {cpu} twice"));
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// The same, of processors that this process may use.
pub(crate) fn usable(list: &str) -> Result<Vec<usize>, String> {
    let cpus = parse(list)?;
    let Ok(allowed) = sched_getaffinity(None) else {
        return Ok(cpus);
    };
    for &cpu in &cpus {
        if allowed.is_set(cpu) {
            continue;
        }
        let may = written(&allowed);
        return Err(
            match Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists() {
                true => format!(
                    "names processor {cpu}, which this process may not use (taskset, the cpuset of \
                 its control group): it may use {may}"
                ),
                false => {
                    format!("names processor {cpu}, which this machine does not have: use {may}")
                }
            },
        );
    }
    Ok(cpus)
}

/// The part of a list that the one at `index` of `users` gets.
pub(crate) fn share(cpus: &[usize], index: usize, users: usize) -> Vec<usize> {
    match cpus.len() {
        0 => Vec::new(),
        count if count >= users => cpus.iter().copied().skip(index).step_by(users).collect(),
        count => vec![cpus[index % count]],
    }
}

/// Has this thread, and those that it starts, run on these processors only; on any if there are none.
pub(crate) fn pin(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The same for a part of a setting that was checked; what a processor that was taken away since
/// leaves undone is logged.
pub(crate) fn pin_share(list: &str, who: &str, index: usize, users: usize) {
    let cpus = parse(list).unwrap_or_default();
    if let Err(error) = pin(&share(&cpus, index, users)) {
        tracing::warn!("{who} runs on any processor: {list:?}: {error}");
    }
}

/// As a list with ranges: `0-3,6`.
fn written(set: &CpuSet) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)) {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_numbers_and_ranges() {
        assert_eq!(parse("").unwrap(), [0; 0]);
        assert_eq!(parse("3").unwrap(), [3]);
        assert_eq!(parse("0-2, 6").unwrap(), [0, 1, 2, 6]);
        for wrong in ["a", "1,", "3-1", "1-", "-1", "99999", "0-1,1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_shared_out_whole() {
        assert_eq!(share(&[], 0, 2), [0; 0]);
        assert_eq!(share(&[4, 5, 6], 0, 2), [4, 6]);
        assert_eq!(share(&[4, 5, 6], 1, 2), [5]);
        assert_eq!(share(&[4, 5], 2, 3), [4]);
        assert_eq!(share(&[4, 5], 0, 1), [4, 5]);
    }

    #[test]
    fn processors_that_are_not_there_are_refused_with_those_that_are() {
        let error = usable("1023").unwrap_err();
        assert!(error.contains("does not have"), "{error}");
        // On a thread of its own: others are not to be bound.
        std::thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let all: Vec<_> = (0..CpuSet::MAX_CPU)
                .filter(|&c| allowed.is_set(c))
                .collect();
            pin(&all[..1]).unwrap();
            assert_eq!(
                written(&sched_getaffinity(None).unwrap()),
                all[0].to_string()
            );
            assert_eq!(usable(&all[0].to_string()).unwrap(), &all[..1]);
            if let Some(other) = all.get(1) {
                let error = usable(&other.to_string()).unwrap_err();
                assert!(error.contains("may not use"), "{error}");
            }
        })
        .join()
        .unwrap();
    }
}
