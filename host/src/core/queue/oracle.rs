//! [`Lane::pick`] against the definition: the lexicographic maximum over everything queued.

use atex_plugin_api::policy::{Prefer, Rank, TestId, VETO};

use super::{Lane, Level, Ticket};
use crate::core::event::Wish;
use crate::core::hash::{Map, mix};

/// Numbers that are random enough, and the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % sides.max(1)
    }
}

const SLOTS: u16 = 4;

/// Four levels: rank only, prefer only (all of class 0), rank and prefer, rank only.
const LEVELS: [Level; 4] = [
    Level { score: Some(0), class: None },
    Level { score: None, class: Some(0) },
    Level { score: Some(1), class: Some(1) },
    Level { score: Some(2), class: None },
];

/// Tests with all that is known of them, and one or two lanes that hold them.
struct World {
    dice: Dice,
    classes: u64,
    /// What scores are multiplied with: how they are sorted depends on how many bits they take.
    scale: i64,
    tickets: Vec<Ticket>,
    ranks: Vec<[Rank; 3]>,
    lane: Lane,
    sequence: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let count = 1 + dice.roll(200) as usize;
        let classes = [2, 5, 300][dice.roll(3) as usize];
        let scale = [1, 1 << 52, 1 << 56][dice.roll(3) as usize];
        let tickets = (0..count)
            .map(|i| Ticket {
                queued: true,
                generation: 0,
                sequence: i as u32,
                claim: 1 + dice.roll(3) as u16,
            })
            .collect();
        let lane = Lane::new(0, count, &LEVELS);
        let mut world = Self { dice, classes, scale, tickets, ranks: vec![], lane, sequence: count as u32 };
        world.ranks = (0..count).map(|_| world.rank()).collect();
        // Some loaded in bulk, the rest one by one.
        let bulk = world.dice.roll(1 + count as u64) as u32;
        for block in (0..bulk).collect::<Vec<_>>().chunks(64) {
            let rows = block.iter().map(|&test| (test, world.ranks[test as usize].as_slice())).collect();
            world.lane.load(rows, &world.tickets);
        }
        world.lane.seal(&world.tickets);
        for test in bulk..count as u32 {
            world.lane.insert(test, &world.ranks[test as usize], &world.tickets);
        }
        world
    }

    fn rank(&mut self) -> [Rank; 3] {
        let dice = &mut self.dice;
        let score = if dice.roll(20) == 0 { VETO } else { dice.roll(2) as i64 };
        [
            Rank { class: 0, score: dice.roll(3) as i64 - 1 },
            Rank { class: dice.roll(self.classes) as u32, score },
            Rank { class: 0, score: dice.roll(50) as i64 * self.scale },
        ]
    }

    /// At most one liked class at the level with many: two are the documented exception.
    fn wishes(&mut self) -> Vec<Wish> {
        let mut wishes: Vec<Wish> = vec![];
        for _ in 0..self.dice.roll(5) {
            let score = if self.dice.roll(6) == 0 { VETO } else { self.dice.roll(5) as i64 - 2 };
            let (level, prefer) = match self.dice.roll(3) {
                0 => (1, Prefer::Class(self.dice.roll(2) as u32, score)),
                1 => (2, Prefer::Class(self.dice.roll(self.classes) as u32, score)),
                _ => (2, Prefer::Test(self.dice.roll(self.tickets.len() as u64) as u32, score.max(1))),
            };
            wishes.push(Wish { level, prefer });
        }
        let liked = |wish: &Wish| wish.level == 2 && matches!(wish.prefer, Prefer::Class(_, 1..));
        let first = wishes.iter().position(liked);
        let mut at = 0;
        wishes.retain(|wish| {
            at += 1;
            !liked(wish) || Some(at - 1) == first
        });
        wishes
    }

    /// What the definition says of one test, or `None` if it may not run.
    fn key(&self, test: usize, wishes: &[Wish], free: u16) -> Option<[i64; 6]> {
        let (ticket, [first, second, third]) = (self.tickets[test], self.ranks[test]);
        let vetoed = [first, second, third].iter().any(|rank| rank.score == VETO);
        if !ticket.queued || ticket.claim.min(SLOTS) > free || vetoed {
            return None;
        }
        let class = |level: u16, class: u32| {
            let mut of = wishes.iter().filter(|wish| wish.level == level);
            of.find_map(|wish| match wish.prefer {
                Prefer::Class(of, score) if of == class => Some(score),
                _ => None,
            })
        };
        let lifted = wishes.iter().find_map(|wish| match wish.prefer {
            Prefer::Test(of, score) if of as usize == test => Some(score),
            _ => None,
        });
        let alone = class(1, 0).unwrap_or(0);
        let mut grouped = class(2, second.class).unwrap_or(0);
        if let Some(score) = lifted.filter(|_| grouped != VETO) {
            grouped = grouped.max(score);
        }
        let vetoed = alone == VETO || grouped == VETO;
        (!vetoed).then_some([
            first.score,
            alone,
            grouped,
            second.score,
            third.score,
            -i64::from(ticket.sequence),
        ])
    }

    fn best(&self, wishes: &[Wish], free: u16) -> Option<TestId> {
        let all =
            (0..self.tickets.len()).filter_map(|test| Some((self.key(test, wishes, free)?, test as u32)));
        all.max().map(|(_, test)| test)
    }

    /// Takes a test, and sometimes queues or ranks another one anew.
    fn change(&mut self, taken: TestId) {
        self.tickets[taken as usize].queued = false;
        if self.dice.roll(2) == 0 {
            self.lane.taken(taken, &self.tickets); // else it is found void later, as with two lanes
        }
        if self.dice.roll(4) != 0 {
            return;
        }
        let again = self.dice.roll(self.tickets.len() as u64) as usize;
        let ticket = &mut self.tickets[again];
        ticket.generation += 1;
        if !ticket.queued {
            (ticket.queued, ticket.sequence) = (true, self.sequence);
            self.sequence += 1;
        }
        self.ranks[again] = self.rank();
        self.lane.insert(again as u32, &self.ranks[again], &self.tickets);
    }
}

#[test]
fn pick_is_the_maximum() {
    let rounds = std::env::var("ATEX_TRIALS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    for seed in 0..rounds {
        let mut world = World::new(seed);
        for _ in 0..2 * world.tickets.len() {
            let wishes = world.wishes();
            let free = world.dice.roll(u64::from(SLOTS)) as u16;
            let want = world.best(&wishes, free);
            let got = world.lane.pick(&wishes, free, SLOTS, &world.tickets);
            assert_eq!(got, want, "seed {seed}: {wishes:?}");
            if let Some(test) = got {
                world.change(test);
            }
        }
    }
}

#[test]
fn a_lane_knows_whether_it_agrees() {
    let mut world = World::new(3);
    for test in 0..world.tickets.len() {
        let ranks = world.ranks[test];
        assert!(world.lane.agrees(test as u32, &ranks, &world.tickets), "{ranks:?}");
        let mut other = ranks;
        other[2].score += 1;
        let vetoed = ranks.iter().any(|rank| rank.score == VETO);
        assert_eq!(world.lane.agrees(test as u32, &other, &world.tickets), vetoed);
        other[2].score = VETO;
        assert_eq!(world.lane.agrees(test as u32, &other, &world.tickets), vetoed);
    }
    world.tickets[0].generation += 1;
    assert!(world.lane.bucket_of(0, &world.tickets).is_none());
}

#[test]
fn emptied_buckets_are_used_again() {
    let levels = [Level { score: Some(0), class: Some(0) }];
    let mut lane = Lane::new(0, 1, &levels);
    let mut tickets = [Ticket { queued: true, generation: 0, sequence: 0, claim: 1 }];
    lane.seal(&tickets);
    for class in 0..1000 {
        tickets[0].queued = true;
        tickets[0].generation += 1;
        lane.insert(0, &[Rank { class, score: 0 }], &tickets);
        assert_eq!(lane.pick(&[], 1, 1, &tickets), Some(0));
        tickets[0].queued = false;
        lane.taken(0, &tickets);
    }
    assert_eq!((lane.buckets.len(), lane.heads.len()), (1, 0));
    assert!(lane.members.iter().all(Map::is_empty));
}
