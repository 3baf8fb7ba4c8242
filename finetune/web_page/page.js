// Clicking a time, a word or a bar plays the recording from there; while it plays, its place is shown in the chart and the transcript.
(() => {
  const player = () => document.querySelector("#player video");
  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-seek]");
    const video = player();
    if (!target || !video) return;
    video.currentTime = Number(target.dataset.seek);
    video.play();
  });
  document.addEventListener("timeupdate", (event) => {
    if (event.target !== player()) return;
    const now = event.target.currentTime;
    for (const line of document.querySelectorAll("svg.chart .playhead")) {
      const chart = line.closest("svg");
      const x = Number(chart.dataset.left) + Number(chart.dataset.wide) * Math.min(1, now / Number(chart.dataset.seconds));
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      line.setAttribute("opacity", 1);
    }
    for (const row of document.querySelectorAll(".utterance")) {
      row.classList.toggle("playing", Number(row.dataset.from) <= now && now < Number(row.dataset.to));
    }
  }, true);
})();
