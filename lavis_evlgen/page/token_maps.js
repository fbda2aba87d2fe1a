// Token maps as `reports/tokens/page.py` writes them, with the script of `reports/tokens/script.py`.
export default {
  template: "<div></div>",
  props: { html: String },
  mounted() {
    this.show();
  },
  watch: {
    html() {
      this.show();
    },
  },
  methods: {
    show() {
      const slider = () => this.$el.querySelector("input[type=range]");
      const before = slider();
      const layer = before && before.value;
      this.$el.innerHTML = this.html;
      if (!this.html) return;
      // another budget shows the same layer
      if (before && slider() && slider().max === before.max) slider().value = layer;
      showTokenMaps(this.$el);
    },
  },
};
